/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What can be said of a connection whose bytes mean nothing to us, TLS above all: who spoke, how much and when. A turn
 * is a question and the answer after it. Records of a handshake are no question, and small segments are neither: a
 * TLS 1.3 handshake's end takes 58 to 80 bytes, alerts, acknowledged settings and window updates of HTTP/2 less; a
 * request has headers and is longer. These times are approximate by nature and are never mixed with the others.
 */
#ifndef SONDE_TURNS_H
#define SONDE_TURNS_H

#define QUESTION_BYTES 128
#define ANSWER_BYTES   48
#define TICKETS_NS     2000000 /* tickets are sent at once; no model answers so soon */

/* Records of TLS that hold no data of the application: change cipher, alert, handshake. */
static __always_inline bool is_handshake(struct __sk_buff *skb, const struct segment *segment)
{
	u8 first = 0;

	return load(skb, segment->payload, &first, 1) && first >= 0x14 && first <= 0x16;
}

static __always_inline void turn_in(struct __sk_buff *skb, const struct segment *segment, struct flow *flow, u64 now)
{
	if (flow->turn != ASKING) {
		if (is_handshake(skb, segment))
			return;
		flow->turn = ASKING;
		flow->start_ns = now;
		flow->remaining = 0;
	}
	flow->remaining += segment->len;
}

/*
 * A TLS 1.3 server speaks once in the handshake, and what it says next are session tickets, which look like data, come
 * in one segment or several and may come behind the first question. Before TLS 1.3 it spoke twice.
 */
static __always_inline bool is_ticket(struct __sk_buff *skb, const struct segment *segment, struct flow *flow, u64 now)
{
	u8 first = 0;

	if (flow->greeted == SPEAKS)
		return false;
	if (flow->greeted == SILENT && is_handshake(skb, segment)) {
		flow->flights++;
		return true;
	}
	if (flow->flights == 1 && load(skb, segment->payload, &first, 1) && first == 0x17) {
		if (flow->greeted == SILENT) {
			flow->greeted = GREETS;
			flow->last_out_ns = now;
			return true;
		}
		if (now - flow->last_out_ns < TICKETS_NS)
			return true;
	}
	flow->greeted = SPEAKS;
	return false;
}

static __always_inline void turn_out(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
				     struct sonde_slot *slot, u64 now)
{
	if (segment->len < ANSWER_BYTES || is_ticket(skb, segment, flow, now))
		return;
	if (flow->turn == ASKING) {
		flow->turn = flow->remaining >= QUESTION_BYTES ? ANSWERING : QUIET;
		if (flow->turn == ANSWERING) {
			ADD(slot->turns, 1);
			observe(slot->turn_hist, &slot->turn_ns_sum, now - flow->start_ns);
		}
	} else if (flow->turn == ANSWERING) {
		observe(slot->turn_gap_hist, &slot->turn_gap_ns_sum, now - flow->last_out_ns);
	}
	flow->last_out_ns = now;
}

#endif
