/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The life of a request in the counts, and what its bytes from the client mean. */
#ifndef SONDE_REQUEST_H
#define SONDE_REQUEST_H

#define EARLY_ID    (1ULL << 63) /* no cookie, which counts from 1, is as large */
#define AFTER(a, b) ((s32)((a) - (b)) > 0)

static __always_inline bool counts(const struct flow *flow)
{
	return !(flow->flags & EXCLUDED);
}

/* Method and path class from flow->head. */
static __always_inline void classify(struct flow *flow)
{
	struct class_prefix prefix = {.bits = SONDE_CLASS_PREFIX_BYTES * 8};
	u32 *class;

	__builtin_memcpy(prefix.bytes, flow->head, SONDE_CLASS_PREFIX_BYTES);
	class = classes.lookup(&prefix);
	flow->flags &= ~(EXCLUDED | HEAD_METHOD);
	flow->flags |= CLASSIFIED;
	if (flow->head[0] == 'H')
		flow->flags |= HEAD_METHOD;
	if (class && *class == SONDE_CLASS_EXCLUDED)
		flow->flags |= EXCLUDED;
}

static __always_inline void begin_request(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	flow->flags &= ~(DATA_SEEN | HALFWAY);
	flow->status = 0;
	flow->state = REQUEST;
	if (flow->flags & EXCLUDED) {
		ADD(slot->excluded, 1);
		return;
	}
	if (slot->in_flight <= 0)
		slot->busy_since_ns = now;
	ADD(slot->started, 1);
	ADD(slot->waiting, 1);
	ADD(slot->in_flight, 1);
}

/* One that was under way when its connection was met. */
static __always_inline void adopt_request(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	flow->flags &= ~(EXCLUDED | HEAD_METHOD | CLASSIFIED);
	flow->start_ns = now;
	flow->last_in_ns = now;
	begin_request(flow, slot, now);
	flow->flags |= HALFWAY;
	ADD(slot->adopted, 1);
}

/* The request in progress leaves the gauges; its outcome is the caller's to count. */
static __always_inline void leave(struct flow *flow, struct sonde_slot *slot)
{
	if (flow->state < REQUEST || !counts(flow))
		return;
	if (!(flow->flags & DATA_SEEN))
		ADD(slot->waiting, -1);
	ADD(slot->in_flight, -1);
}

static __always_inline void go_opaque(struct flow *flow, struct sonde_slot *slot)
{
	if (flow->flags & HTTP2)
		end_streams(flow, slot, &slot->lost);
	else if (flow->state >= REQUEST && counts(flow))
		ADD(slot->lost, 1);
	leave(flow, slot);
	flow->state = IDLE;
	flow->pending = 0;
	flow->turn = QUIET;
	flow->flights = 0;
	flow->greeted = 0;
	flow->flags |= OPAQUE;
	ADD(slot->connections_opaque, 1);
}

static __always_inline void count_complete(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	leave(flow, slot);
	flow->state = IDLE;
	if (!counts(flow))
		return;
	ADD(slot->completed, 1);
	if (!(flow->flags & HALFWAY))
		observe(slot->duration_hist, &slot->duration_ns_sum, now - flow->start_ns);
}

static __always_inline void complete_request(struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot, u64 now)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);

	count_complete(flow, slot, now);
	if (tcp && counts(flow))
		slot->srtt_us = tcp->srtt_us >> 3;
}

/* Appends to flow->head what of the segment still fits; false where nothing could be read. */
static __always_inline bool append_head(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					u32 offset, u32 wanted)
{
	u64 have = flow->head_len, n = segment->len - offset;

	if (have >= wanted)
		return true;
	if (n > wanted - have)
		n = wanted - have;
	KEEP(n);
	KEEP(have);
	if (n < 1 || n > HEAD_BYTES || have > HEAD_BYTES - 1)
		return false;
	flow->flags &= ~CLASSIFIED;
	if (!load(skb, segment->payload + offset, flow->head + have, n))
		return false;
	flow->head_len = have + n;
	return true;
}

static __always_inline bool ends_line(struct __sk_buff *skb, const struct segment *segment)
{
	u8 last = 0;

	return load(skb, segment->payload + segment->len - 1, &last, 1) && last == '\n';
}

/* The rule of most requests: one like the last on this connection. */
static __always_inline bool same_as_last(struct __sk_buff *skb, const struct segment *segment, const struct flow *flow)
{
	const u64 *last = (const u64 *)flow->head;
	u64 head[HEAD_BYTES / 8];

	return flow->flags & CLASSIFIED && flow->state == IDLE && segment->len >= HEAD_BYTES &&
	       load(skb, segment->payload, head, HEAD_BYTES) && head[0] == last[0] && head[1] == last[1] &&
	       head[2] == last[2];
}

/*
 * The client's preface, whole or so far. What follows it in this segment is frames already. The server may have sent
 * its first ones before.
 */
static __always_inline void follow_preface(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					   struct sonde_slot *slot, u32 before)
{
	if (flow->head_len < HEAD_BYTES)
		return;
	flow->state = IDLE;
	if (!is_preface(flow->head)) {
		COUNT_DROP(not_http);
		go_opaque(flow, slot);
		return;
	}
	if (!(flow->flags & HTTP2_EARLY))
		start_http2(flow, connection_id(skb, segment->sport));
	flow->flags = (flow->flags & ~HTTP2_EARLY) | HTTP2;
	flow->http2.in.at = segment->overlap + HEAD_BYTES - before;
	ADD(slot->connections_http2, 1);
}

/* Bytes before a request is counted: enough of them to know method and path class? */
static __always_inline void read_prefix(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					struct sonde_slot *slot, u64 now)
{
	u32 before;

	if (flow->state == IDLE) {
		__builtin_memset(flow->head, 0, HEAD_BYTES);
		flow->head_len = 0;
		flow->start_ns = now;
	}
	before = flow->head_len;
	if (!append_head(skb, segment, flow, 0, HEAD_BYTES))
		return;
	flow->state = PREFIX;
	if (flow->head_len >= 4 && begins_preface(flow->head)) {
		follow_preface(skb, segment, flow, slot, before);
		return;
	}
	if (flow->head_len >= 4 && !is_method(flow->head)) {
		flow->state = IDLE;
		if (flow->flags & FROM_START) {
			COUNT_DROP(not_http);
			go_opaque(flow, slot);
		} else if (is_foreign(flow->head)) {
			COUNT_DROP(met_halfway);
			go_opaque(flow, slot);
		}
		/* else a connection met halfway may be inside a body; the answer or the next request will tell */
		return;
	}
	if (flow->head_len == HEAD_BYTES || (flow->head_len >= 4 && ends_line(skb, segment))) {
		classify(flow);
		begin_request(flow, slot, now);
	}
}

/*
 * The next request, sent before the response to the last one ended. While nothing of that came yet, this may be the
 * request's own body: then only a segment that begins with the very same 24 bytes is taken for a request.
 */
static __always_inline void note_pipelined(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					   struct sonde_slot *slot, u64 now)
{
	const u64 *last = (const u64 *)flow->head;
	u64 head[HEAD_BYTES / 8];

	flow->last_in_ns = now;
	if (segment->len < HEAD_BYTES || flow->pending == 255)
		return;
	if (flow->state == REQUEST && !(flow->flags & CLASSIFIED))
		return;
	if (!load(skb, segment->payload, head, sizeof(head)) || !is_method((const u8 *)head))
		return;
	if (flow->state == REQUEST) {
		if (head[0] != last[0] || head[1] != last[1] || head[2] != last[2])
			return;
	} else {
		__builtin_memcpy(flow->head, head, HEAD_BYTES);
		flow->flags &= ~CLASSIFIED;
	}
	if (!flow->pending++)
		flow->next_start_ns = now;
	ADD(slot->pipelined, 1);
}

/* A response met halfway whose end nobody can see ended when the client asks again. */
static __always_inline bool ends_unseen(struct __sk_buff *skb, const struct segment *segment, const struct flow *flow)
{
	u8 head[4];

	return flow->flags & HALFWAY && flow->state == BODY && flow->chunk_phase == CHUNK_SOMEWHERE &&
	       segment->len >= HEAD_BYTES && load(skb, segment->payload, head, sizeof(head)) && is_method(head);
}

static __always_inline void follow_request(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					   struct sonde_slot *slot, u64 now)
{
	if (ends_unseen(skb, segment, flow))
		count_complete(flow, slot, now);
	if (same_as_last(skb, segment, flow)) {
		flow->start_ns = now;
		begin_request(flow, slot, now);
	} else if (flow->state <= PREFIX) {
		read_prefix(skb, segment, flow, slot, now);
	} else {
		note_pipelined(skb, segment, flow, slot, now);
		return;
	}
	flow->last_in_ns = now;
}

/*
 * Is this segment the next one in order, with bytes not taken before? What of it was taken before is cut off. The
 * filter runs before TCP has looked at the segment, so duplicates and overtakers are still there.
 */
static __always_inline bool in_order(struct bpf_sock *sk, struct flow *flow, struct sonde_slot *slot,
				     struct segment *segment)
{
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	u32 end = segment->seq + segment->len, next = tcp ? tcp->rcv_nxt : 0;

	if (!(flow->flags & IN_KNOWN)) {
		flow->flags |= IN_KNOWN;
		/* the first to come may have overtaken the first sent */
		flow->in_end = tcp ? next : segment->seq;
	}
	/* what arrived out of order has been taken in by TCP meanwhile; what it has not yet taken is in in_end */
	if (tcp && AFTER(next, flow->in_end)) {
		if (flow->flags & HTTP2 && !miss_bytes(&flow->http2.in, next - flow->in_end)) {
			COUNT_DROP(http2_out_of_step);
			go_opaque(flow, slot);
		}
		flow->in_end = next;
	}
	if (!AFTER(end, flow->in_end) || AFTER(segment->seq, flow->in_end))
		return false;
	segment->overlap = flow->in_end - segment->seq;
	segment->payload += segment->overlap;
	segment->len -= segment->overlap;
	flow->in_end = end;
	return true;
}

/*
 * The listener sees the third ACK; a request on it must wait here for the connection it opens. True where frames of
 * HTTP/2 follow: their streams need an id now, and a cookie the connection has not.
 */
static __always_inline bool at_listener(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					struct sonde_slot *slot)
{
	u32 end = segment->seq + segment->len + (segment->flags & TCP_SYN ? 1 : 0);
	bool again = flow->early_port == segment->sport && flow->in_end == end;

	if ((segment->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		ADD(slot->syns, 1);
	if (!segment->len) {
		if (flow->early_port == segment->sport) /* of an earlier connection, or of another client */
			flow->early_port = 0;
		return false;
	}
	__builtin_memset(flow->head, 0, HEAD_BYTES);
	flow->head_len = 0;
	if (!append_head(skb, segment, flow, 0, HEAD_BYTES))
		return false;
	flow->early_port = segment->sport;
	if (!again) /* where the accept queue is full the client sends it again, and has waited since the first time */
		flow->start_ns = now_ns();
	flow->in_end = end;
	flow->remaining = segment->len;
	if (flow->head_len < HEAD_BYTES || !is_preface(flow->head))
		return false;
	start_http2(flow, EARLY_ID | flow->start_ns << 16 | segment->sport);
	flow->http2.in.at = HEAD_BYTES;
	return true;
}

#endif
