/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the bytes to the client mean: interim and final header, first data, chunks, the end. */
#ifndef SONDE_RESPONSE_H
#define SONDE_RESPONSE_H

/* Keeps the last 8 bytes of a chunked response; `from` is where its body begins in this segment. */
static __always_inline void update_tail(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					u32 from)
{
	u64 n = segment->len - from, tail = flow->tail;
	u8 bytes[8] = {};

	if (from >= segment->len)
		return;
	if (n >= 8) {
		if (load(skb, segment->payload + segment->len - 8, bytes, 8))
			flow->tail = __builtin_bswap64(*(u64 *)bytes);
		return;
	}
	KEEP(n);
	if (n < 1 || n > 7 || !load(skb, segment->payload + from, bytes, n))
		return;
#pragma unroll
	for (int i = 0; i < 7; i++)
		if (i < n)
			tail = tail << 8 | bytes[i];
	flow->tail = tail;
}

static __always_inline void first_data(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	flow->flags |= DATA_SEEN;
	if (!counts(flow))
		return;
	ADD(slot->waiting, -1);
	ADD(slot->first_data, 1);
	ADD(slot->chunks, 1);
	observe(slot->ttft_hist, &slot->ttft_ns_sum, now - flow->start_ns);
}

/* A segment behind the first data: a chunk, unless it holds only framing or a comment. */
static __always_inline void next_data(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
				      struct sonde_slot *slot, u64 gap)
{
	u64 first = 0;

	if (!counts(flow))
		return;
	if (flow->flags & CHUNKED && segment->len <= LAST_CHUNK_LEN)
		return;
	if (flow->flags & EVENTS && segment->len >= 8 && load(skb, segment->payload, &first, 8) &&
	    begins_with_comment(__builtin_bswap64(first)))
		return;
	ADD(slot->chunks, 1);
	ADD(slot->gaps, 1);
	observe(slot->gap_hist, &slot->gap_ns_sum, gap);
}

/* The status is known: an interim response (1xx) is not the answer. */
static __always_inline void count_response(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	if (flow->status < 200 || !counts(flow))
		return;
	ADD(slot->responded, 1);
	observe(slot->header_hist, &slot->header_ns_sum, now - flow->start_ns);
	observe(slot->upload_hist, &slot->upload_ns_sum, flow->last_in_ns - flow->start_ns);
	if (flow->status >= 500)
		ADD(slot->status_5xx, 1);
	else if (flow->status >= 400)
		ADD(slot->status_4xx, 1);
}

/* One window of the segment from scan_offset on into bytes. Returns how many, 0 where there is none. */
static __always_inline u64 load_window(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
				       u8 *bytes)
{
	u64 n = segment->len - flow->scan_offset;

	if (flow->scan_offset >= segment->len)
		return 0;
	KEEP(n);
	if (n > SONDE_WINDOW_BYTES)
		n = SONDE_WINDOW_BYTES;
	KEEP(n);
	if (n < 1 || n > SONDE_WINDOW_BYTES || !load(skb, segment->payload + flow->scan_offset, bytes, n))
		return 0;
	return n;
}

enum follow { FOLLOWED, MORE_WINDOWS };

/* The header ends at scan_offset: a body follows, or after an interim response another header. */
static __always_inline void end_header(const struct segment *segment, struct flow *flow, struct sonde_slot *slot)
{
	if (flow->status == 101) { /* another protocol from here on */
		go_opaque(flow, slot);
	} else if (flow->has_length > 1) { /* nobody can tell where this ends */
		COUNT_DROP(two_lengths);
		go_opaque(flow, slot);
	} else if (flow->status < 200) {
		flow->state = REQUEST;
	} else {
		frame_body(flow);
		flow->state = BODY;
		flow->windows = 0;
		flow->body_offset = flow->scan_offset;
		flow->tail = CRLF_CRLF;
	}
}

/* A window of a response header; behind its end the state is BODY, or REQUEST again after an interim one. */
static __always_inline void follow_header(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					  struct sonde_slot *slot, u8 *bytes, u64 n, u64 now)
{
	bool whole = false;

	if (flow->state == REQUEST) {
		start_header(flow);
		flow->state = HEADER;
	}
	if (!flow->status) {
		if (!append_head(skb, segment, flow, flow->scan_offset, STATUS_BYTES))
			return;
		if (flow->head_len >= 6 && !is_http1_response(flow->head)) {
			go_opaque(flow, slot);
			return;
		}
		if (flow->head_len >= STATUS_BYTES) {
			flow->status = status_of(flow->head);
			count_response(flow, slot, now);
		}
	}
	flow->scan_offset += scan_header(flow, bytes, n, &whole);
	if (!whole) {
		if (++flow->windows > SONDE_WINDOWS) {
			COUNT_DROP(header_too_long);
			go_opaque(flow, slot);
		}
		return;
	}
	end_header(segment, flow, slot);
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
	first_data(flow, slot, now);
}

/* Takes a segment's body bytes off what is to come. Returns whether the body ends with them. */
static __always_inline bool take_body(struct __sk_buff *skb, const struct segment *segment, struct flow *flow)
{
	u32 n = segment->len - flow->body_offset;

	if (flow->flags & CHUNKED)
		update_tail(skb, segment, flow, flow->body_offset);
	else if (flow->remaining != LENGTH_UNKNOWN)
		flow->remaining = flow->remaining > n ? flow->remaining - n : 0;
	return body_ended(flow);
}

/* The end of a segment in the body, everything in it looked at. */
static __always_inline void follow_body(struct __sk_buff *skb, const struct segment *segment, struct bpf_sock *sk,
					struct flow *flow, struct sonde_slot *slot, u64 now)
{
	if (!(flow->flags & (EVENTS | DATA_SEEN)))
		await_body(segment, flow, slot, now);
	if (take_body(skb, segment, flow))
		complete_request(sk, flow, slot, now);
}

/* Header bytes or events still to be looked at in this segment? */
static __always_inline bool has_unread(const struct segment *segment, const struct flow *flow)
{
	return flow->scan_offset < segment->len && !(flow->flags & DATA_SEEN) &&
	       (flow->state < BODY || flow->flags & EVENTS);
}

/* The slow way over a segment without data so far: one window, byte by byte. */
static __always_inline enum follow follow_window(struct __sk_buff *skb, const struct segment *segment,
						 struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot,
						 u64 now)
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
		return MORE_WINDOWS;
	if (flow->state == BODY)
		follow_body(skb, segment, sk, flow, slot, now);
	return FOLLOWED;
}

/* The quick way over the first segment of a response. False: nothing was done, take the slow way. */
static __always_inline bool follow_short_header(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
						struct sonde_slot *slot, u64 now)
{
	u64 n = load_window(skb, segment, flow, (u8 *)flow->skim.words);

	start_header(flow);
	if (n)
		flow->scan_offset = skim_header(flow, n);
	if (!flow->scan_offset)
		return false;
	count_response(flow, slot, now);
	end_header(segment, flow, slot);
	return true;
}

/* A segment of new response bytes. */
static __always_inline enum follow follow_response(struct __sk_buff *skb, const struct segment *segment,
						   struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot,
						   u64 now)
{
	u64 gap = now - flow->last_out_ns;

	if (flow->state == PREFIX) {
		classify(flow);
		begin_request(flow, slot, now);
	}
	if (flow->state == IDLE)
		return FOLLOWED; /* an answer to nothing: a time-out notice, or a request from before our time */
	flow->last_out_ns = now;
	if (counts(flow))
		slot->last_byte_ns = now;
	flow->scan_offset = 0;
	flow->body_offset = 0;
	if (flow->flags & DATA_SEEN)
		next_data(skb, segment, flow, slot, gap);
	else if (flow->state == REQUEST && !follow_short_header(skb, segment, flow, slot, now))
		return MORE_WINDOWS;
	if (has_unread(segment, flow))
		return MORE_WINDOWS;
	if (flow->state == BODY)
		follow_body(skb, segment, sk, flow, slot, now);
	return FOLLOWED;
}

static __always_inline bool is_new(struct flow *flow, struct sonde_slot *slot, const struct segment *segment)
{
	u32 end = segment->seq + segment->len;

	if (flow->flags & OUT_KNOWN && !AFTER(end, flow->out_end)) {
		ADD(slot->retransmits, 1);
		return false;
	}
	flow->flags |= OUT_KNOWN;
	flow->out_end = end;
	return true;
}

#endif
