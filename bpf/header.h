/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Response headers, interim and final: what they say of the body and what they add to the counts. */
#ifndef SONDE_HEADER_H
#define SONDE_HEADER_H

/* The status is known: an interim response (1xx) is not the answer. */
static __always_inline void count_response(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	if (flow->status < 200 || !counts(flow))
		return;
	ADD(slot->responded, 1);
	if (!(flow->flags & HALFWAY)) {
		observe(slot->header_hist, &slot->header_ns_sum, now - flow->start_ns);
		observe(slot->upload_hist, &slot->upload_ns_sum, flow->last_in_ns - flow->start_ns);
	}
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

enum follow { FOLLOWED, TO_HEADER, TO_CHUNKS, TO_NEXT, TO_FRAMES }; /* where the rest of the segment is looked at */

/* The header ends at scan_offset: a body follows, or after an interim response another header. */
static __always_inline void end_header(const struct segment *segment, struct flow *flow, struct sonde_slot *slot)
{
	if (flow->status == 101) { /* another protocol from here on */
		go_opaque(flow, slot);
	} else if (flow->has_length > 1) { /* nobody can tell where this ends */
		COUNT_DROP(two_lengths);
		go_opaque(flow, slot);
	} else if (flow->bad_length && !(flow->flags & CHUNKED)) {
		COUNT_DROP(bad_length);
		go_opaque(flow, slot);
	} else if (flow->status < 200) {
		flow->state = REQUEST;
	} else {
		if (flow->flags & CHUNKED && flow->has_length)
			COUNT_DROP(both_framings);
		frame_body(flow);
		flow->state = BODY;
		flow->windows = 0;
		flow->body_offset = flow->scan_offset;
		start_chunks(flow);
	}
}

/* A window of a response header; behind its end the state is BODY, or REQUEST again after an interim one. */
static __always_inline void follow_header(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					  struct sonde_slot *slot, u8 *bytes, u64 n, u64 now)
{
	u32 from = flow->scan_offset;
	bool whole = false;

	if (flow->state == REQUEST) {
		start_header(flow);
		flow->state = HEADER;
	}
	/* before all else, so that the verifier comes to this loop in one state only */
	flow->scan_offset = from + scan_header(flow, bytes, n, &whole);
	if (!flow->status) {
		if (!append_head(skb, segment, flow, from, STATUS_BYTES))
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
	if (!whole) {
		if (++flow->windows > SONDE_WINDOWS) {
			COUNT_DROP(header_too_long);
			go_opaque(flow, slot);
		}
		return;
	}
	end_header(segment, flow, slot);
}

/* The quick way over the first segment of a response. False: nothing was done, take the slow way. */
static __always_inline bool follow_short_header(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
						struct sonde_slot *slot, u64 now)
{
	u64 n;

	start_header(flow); /* first: what it resets of the slow way shares its memory with the words */
	n = load_window(skb, segment, flow, (u8 *)flow->skim.words);
	if (n)
		flow->scan_offset = skim_header(flow, n);
	if (!flow->scan_offset)
		return false;
	count_response(flow, slot, now);
	end_header(segment, flow, slot);
	return true;
}

#endif
