/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What the application's own calls add, where the kernel has the tracepoints sock_send_length and sock_recv_length
 * (6.3): chunks as they were written, whatever loss makes of their segments, and how long bytes lay unread.
 */
#ifndef SONDE_CALLS_H
#define SONDE_CALLS_H

#define MSG_PEEK_FLAG 2

/* The flow that one of these calls is of; 0 where it is none of ours. */
static __always_inline struct flow *called_flow(void *sk)
{
	struct flow *flow = flows.sk_storage_get(sk, 0, 0);

	if (!flow || !flow->slot || !(flow->flags & SERVER) || is_shed(SONDE_SHED_CALLS))
		return 0;
	return flow;
}

/* The bytes of a write are sent inside it, unless the network holds them back: then segments merge and split them. */
static __always_inline void on_write(struct flow *flow, struct sonde_slot *slot, u32 n)
{
	bool data = flow->data_left;

	flow->written += n;
	if ((s32)(flow->sent - flow->written) > 0) /* written before anybody listened to the calls */
		flow->written = flow->sent;
	flow->data_left = 0;
	if (flow->flags & (OPAQUE | HTTP2 | HTTP2_EARLY) || !counts(flow))
		return;
	if (flow->written != flow->sent)
		data = flow->flags & DATA_SEEN && flow->state == BODY &&
		       !(flow->flags & CHUNKED && n <= LAST_CHUNK_LEN);
	if (data)
		ADD(slot->exact_chunks, 1);
}

static __always_inline void on_read(struct flow *flow, struct sonde_slot *slot)
{
	u64 arrived = flow->arrived_ns, now;

	if (!arrived)
		return;
	flow->arrived_ns = 0;
	now = bpf_ktime_get_ns();
	if (now > arrived && counts(flow))
		observe(slot->read_delay_hist, &slot->read_delay_ns_sum, now - arrived);
}

#endif
