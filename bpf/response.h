/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the bytes to the client mean: first data, chunks, the end, and the next response behind it. */
#ifndef SONDE_RESPONSE_H
#define SONDE_RESPONSE_H

/*
 * Exact chunks are what the application wrote. calls.h decides for a write call whose bytes all left the socket inside
 * it, and is told here that data was among them. Bytes that leave later were judged when they were written, but for the
 * first data, of which only now is known that it is any.
 */
static __always_inline void tell_writer(struct flow *flow, struct sonde_slot *slot, bool first)
{
	if ((s32)(flow->sent - flow->written) > 0)
		flow->data_left = 1;
	else if (first)
		ADD(slot->exact_chunks, 1);
}

static __always_inline void first_data(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	flow->flags |= DATA_SEEN;
	if (!counts(flow))
		return;
	ADD(slot->waiting, -1);
	ADD(slot->chunks, 1);
	tell_writer(flow, slot, true);
	if (flow->flags & HALFWAY)
		return;
	ADD(slot->first_data, 1);
	observe(slot->ttft_hist, &slot->ttft_ns_sum, now - flow->start_ns);
}

/* A segment behind the first data: a chunk, unless it holds only framing or a comment. `first`: its first 8 bytes. */
static __always_inline void next_data(const struct segment *segment, struct flow *flow, struct sonde_slot *slot,
				      u64 first, u64 gap)
{
	if (!counts(flow))
		return;
	if (flow->flags & CHUNKED && segment->len <= LAST_CHUNK_LEN)
		return;
	if (flow->flags & EVENTS && begins_with_comment(__builtin_bswap64(first)))
		return;
	ADD(slot->chunks, 1);
	tell_writer(flow, slot, false);
	ADD(slot->gaps, 1);
	observe(slot->gap_hist, &slot->gap_ns_sum, gap);
}

/* Body bytes of an event stream before its first event: comments are no data. */
static __always_inline void await_event(struct flow *flow, struct sonde_slot *slot, u8 *bytes, u64 n, u64 now)
{
	bool found = false;

	flow->scan_offset += scan_event(flow, bytes, n, &found);
	/* a segment without an end in sight: give the search up rather than never see the data */
	if (found || ++flow->windows > SONDE_WINDOWS)
		first_data(flow, slot, now);
}

/* Any other body: its first bytes are its first data, unless they only say that there is none. */
static __always_inline void await_body(const struct segment *segment, struct flow *flow, struct sonde_slot *slot,
				       u64 now)
{
	u32 n = segment->len - flow->body_offset;

	if (flow->body_offset >= segment->len || (flow->flags & CHUNKED && n <= LAST_CHUNK_LEN))
		return;
	if (!(flow->flags & CHUNKED) && !flow->remaining)
		return;
	first_data(flow, slot, now);
}

/* The first 8 bytes from an offset on, 0 where there are fewer. */
static __always_inline u64 word_of(struct __sk_buff *skb, const struct segment *segment, u32 offset)
{
	u64 word = 0;

	if (offset >= segment->len || segment->len - offset < 8)
		return 0;
	return load(skb, segment->payload + offset, &word, 8) ? word : 0;
}

/* Takes a segment's body bytes, `first` their first 8, off what is to come. */
static __always_inline enum walked take_body(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					     u64 first)
{
	u32 n = segment->len - flow->body_offset;

	flow->scan_offset = flow->body_offset;
	if (flow->flags & CHUNKED) {
		if (flow->chunk_phase == CHUNK_SOMEWHERE)
			return ends_with_last_chunk(skb, segment, flow) ? AT_END : WALKED;
		return step_chunk(flow, first, n);
	}
	if (flow->remaining != LENGTH_UNKNOWN && flow->remaining <= n) {
		flow->scan_offset += flow->remaining;
		flow->remaining = 0;
		return AT_END;
	}
	flow->scan_offset = segment->len;
	if (flow->remaining != LENGTH_UNKNOWN)
		flow->remaining -= n;
	return WALKED;
}

/*
 * A response whose request nobody saw begin: it came together with the one before it, before the connection was met, or
 * never, as where a server that is full answers whoever connects. Without a byte of the client there is no time to
 * take. A server that closes an idle connection may say 408 first; that answers nothing.
 */
static __always_inline bool begin_unseen(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					 struct sonde_slot *slot, u64 now)
{
	u8 head[STATUS_BYTES] = {};

	if (segment->len < flow->scan_offset + STATUS_BYTES ||
	    !load(skb, segment->payload + flow->scan_offset, head, STATUS_BYTES) || !is_http1_response(head) ||
	    status_of(head) == 408)
		return false;
	if (!(flow->flags & IN_KNOWN) || (!(flow->flags & FROM_START) && !(flow->flags & CLASSIFIED))) {
		adopt_request(flow, slot, now);
		return true;
	}
	flow->start_ns = flow->last_in_ns;
	ADD(slot->pipelined, 1);
	begin_request(flow, slot, now);
	return true;
}

/* The response is whole; the next one may begin in the same segment. */
static __always_inline enum follow end_body(struct __sk_buff *skb, const struct segment *segment, struct bpf_sock *sk,
					    struct flow *flow, struct sonde_slot *slot, u64 now)
{
	complete_request(sk, flow, slot, now);
	return flow->pending || flow->scan_offset < segment->len ? TO_NEXT : FOLLOWED;
}

static __always_inline enum follow after_walk(struct __sk_buff *skb, const struct segment *segment, struct bpf_sock *sk,
					      struct flow *flow, struct sonde_slot *slot, enum walked walked, u64 now)
{
	switch (walked) {
	case WALKED:
		return FOLLOWED;
	case AT_END:
		return end_body(skb, segment, sk, flow, slot, now);
	case MORE_STEPS:
		return TO_CHUNKS;
	case OUT_OF_STEP:
		COUNT_DROP(bad_chunk);
		go_opaque(flow, slot);
	}
	return FOLLOWED;
}

/* The end of a segment in the body, everything in it looked at. */
static __always_inline enum follow follow_body(struct __sk_buff *skb, const struct segment *segment,
					       struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot,
					       u64 first, u64 now)
{
	if (!(flow->flags & (EVENTS | DATA_SEEN)))
		await_body(segment, flow, slot, now);
	return after_walk(skb, segment, sk, flow, slot, take_body(skb, segment, flow, first), now);
}

/* Header bytes or events still to be looked at in this segment? */
static __always_inline bool has_unread(const struct segment *segment, const struct flow *flow)
{
	return flow->scan_offset < segment->len && !(flow->flags & DATA_SEEN) &&
	       (flow->state < BODY || flow->flags & EVENTS);
}

/* The slow way over a segment without data so far: one window, byte by byte. */
static __always_inline enum follow follow_window(struct __sk_buff *skb, const struct segment *segment,
						 struct flow *flow, struct sonde_slot *slot, u64 now)
{
	u8 bytes[SONDE_WINDOW_BYTES] = {};
	u64 n = load_window(skb, segment, flow, bytes);

	if (!n)
		return FOLLOWED;
	if (flow->state < BODY)
		follow_header(skb, segment, flow, slot, bytes, n, now);
	else
		await_event(flow, slot, bytes, n, now);
	if (flow->flags & OPAQUE)
		return FOLLOWED;
	if (has_unread(segment, flow))
		return TO_HEADER;
	if (flow->state != BODY)
		return FOLLOWED;
	/* not here: the verifier would follow all that comes after the loops once for each of their ends */
	flow->body_due = 1;
	return TO_CHUNKS;
}

/* The first bytes of a connection that was met halfway come from the server: an answer under way, if it is HTTP/1.x. */
static __always_inline void meet_halfway(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					 struct sonde_slot *slot, u64 now)
{
	u8 head[2] = {};

	if (segment->len < 2 || !load(skb, segment->payload, head, 2))
		return;
	if (is_foreign(head)) {
		COUNT_DROP(met_halfway);
		go_opaque(flow, slot);
		return;
	}
	adopt_request(flow, slot, now);
	flow->state = BODY;
	flow->status = 200;
	flow->flags |= CHUNKED | EVENTS | DATA_SEEN;
	ADD(slot->waiting, -1);
	flow->chunk_phase = CHUNK_SOMEWHERE;
	flow->raw = 0;
	flow->last_out_ns = now;
}

/* Does an HTTP/2 server speak first? RFC 9113, 3.4 lets it. */
static __always_inline bool begins_with_settings(struct __sk_buff *skb, const struct segment *segment)
{
	struct frame frame = {};
	u8 head[12] = {};

	if (segment->len < FRAME_BYTES || !load(skb, segment->payload, head, FRAME_BYTES))
		return false;
	read_frame(head, &frame);
	return is_frame(&frame, true) && frame.len < 256;
}

static __always_inline enum follow speak_early(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					       u64 now)
{
	start_http2(flow, connection_id(skb, segment->dport));
	flow->flags |= HTTP2_EARLY;
	flow->last_out_ns = now;
	return TO_FRAMES;
}

/*
 * No request is under way, yet bytes come, or a pipelined request is next: what do the bytes from scan_offset on
 * answer? Rare, and a program of its own for its stack.
 */
static __always_inline enum follow follow_next(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					       struct sonde_slot *slot, u64 now)
{
	bool first = !(flow->flags & IN_KNOWN) && !flow->last_out_ns;

	if (flow->state == PREFIX && flow->flags & FROM_START && begins_with_settings(skb, segment))
		return speak_early(skb, segment, flow, now); /* the client's preface came in part */
	if (flow->state == PREFIX || flow->pending) {
		if (flow->state != PREFIX) {
			flow->pending--;
			flow->start_ns = flow->next_start_ns;
		}
		classify(flow);
		begin_request(flow, slot, now);
		flow->last_out_ns = now;
		return flow->scan_offset < segment->len ? TO_HEADER : FOLLOWED;
	}
	if (flow->scan_offset >= segment->len)
		return FOLLOWED;
	if (begin_unseen(skb, segment, flow, slot, now)) {
		flow->last_out_ns = now;
		if (counts(flow))
			slot->last_byte_ns = now;
		return TO_HEADER;
	}
	if (!first)
		return FOLLOWED;
	if (!(flow->flags & FROM_START)) {
		meet_halfway(skb, segment, flow, slot, now);
		if (flow->state == BODY && ends_with_last_chunk(skb, segment, flow))
			count_complete(flow, slot, now);
		return FOLLOWED;
	}
	return begins_with_settings(skb, segment) ? speak_early(skb, segment, flow, now) : FOLLOWED;
}

/* A segment of new response bytes. */
static __always_inline enum follow follow_response(struct __sk_buff *skb, const struct segment *segment,
						   struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot,
						   u64 now)
{
	u64 gap = now - flow->last_out_ns, first = 0;

	if (flow->flags & (HTTP2 | HTTP2_EARLY)) {
		flow->last_out_ns = now;
		flow->http2.out.at = 0;
		return TO_FRAMES;
	}
	flow->scan_offset = 0;
	if (flow->flags & PEER_FIN)
		flow->flags |= ANSWERED_FIN;
	if (flow->state <= PREFIX)
		return TO_NEXT;
	flow->last_out_ns = now;
	if (counts(flow))
		slot->last_byte_ns = now;
	flow->body_offset = 0;
	if (flow->flags & DATA_SEEN) {
		first = word_of(skb, segment, 0);
		next_data(segment, flow, slot, first, gap);
	} else if (flow->state == REQUEST && !follow_short_header(skb, segment, flow, slot, now)) {
		return TO_HEADER;
	}
	if (has_unread(segment, flow))
		return TO_HEADER;
	if (flow->state != BODY)
		return FOLLOWED;
	if (flow->body_offset || !(flow->flags & DATA_SEEN))
		first = word_of(skb, segment, flow->body_offset);
	return follow_body(skb, segment, sk, flow, slot, first, now);
}

static __always_inline bool is_new(struct flow *flow, struct sonde_slot *slot, const struct segment *segment)
{
	u32 end = segment->seq + segment->len, n = segment->len;

	if (!(flow->flags & OUT_KNOWN)) {
		flow->flags |= OUT_KNOWN;
	} else if (!AFTER(end, flow->out_end)) {
		ADD(slot->retransmits, 1);
		return false;
	} else if (AFTER(flow->out_end, segment->seq)) {
		n = end - flow->out_end;
	}
	flow->out_end = end;
	flow->sent += n;
	ADD(slot->tx_bytes, n);
	return true;
}

#endif
