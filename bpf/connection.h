/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Connections opened and closed, and the requests that end with them. */
#ifndef SONDE_CONNECTION_H
#define SONDE_CONNECTION_H

#define EARLY_WINDOW_NS 1000000 /* third ACK to established: one softirq run; 1 ms is generous */

static __always_inline void on_established(struct bpf_sock_ops *ops, struct flow *flow)
{
	u64 now = bpf_ktime_get_ns();
	u16 peer_port = bpf_ntohl(ops->remote_port);
	bool early = flow->early_port == peer_port && now - flow->start_ns < EARLY_WINDOW_NS;
	struct sonde_slot *slot = slot_at(flow);
	u32 early_len = flow->remaining;

	/* the copy of the listener's storage becomes a connection's own */
	flow->flags = SERVER | FROM_START | (early ? IN_KNOWN : 0);
	flow->state = IDLE;
	flow->early_port = 0;
	flow->next_start_ns = 0;
	/* closing must be heard of even where the owner becomes known only later */
	bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
	if (!slot)
		return;
	flow->flags |= COUNTED;
	ADD(slot->connections_opened, 1);
	if (!early) {
		flow->head_len = 0;
		return;
	}
	ADD(slot->rx_bytes, early_len);
	flow->last_in_ns = flow->start_ns;
	flow->state = PREFIX;
	if (flow->head_len < 4)
		return;
	if (!is_method(flow->head)) {
		go_opaque(flow, slot);
		return;
	}
	classify(flow);
	begin_request(flow, slot, flow->start_ns);
}

/*
 * A response cut off by the end of its connection. Without a length or chunks the server's FIN is its
 * proper end, unless the client had gone first.
 */
static __always_inline void cut_off(struct bpf_sock_ops *ops, struct flow *flow, struct sonde_slot *slot, u32 state)
{
	u16 client_gone = flow->flags & (PEER_FIN | PEER_RST);

	if (flow->state == BODY && flow->remaining == LENGTH_UNKNOWN && !(flow->flags & CHUNKED) && !client_gone &&
	    state != BPF_TCP_CLOSE) {
		leave(flow, slot);
		if (counts(flow)) {
			ADD(slot->completed, 1);
			observe(slot->duration_hist, &slot->duration_ns_sum, flow->last_out_ns - flow->start_ns);
		}
	} else {
		leave(flow, slot);
		if (!counts(flow))
			;
		else if (client_gone)
			ADD(slot->client_aborted, 1);
		else
			ADD(slot->server_aborted, 1);
	}
	flow->state = IDLE;
}

static __always_inline void on_state(struct bpf_sock_ops *ops, struct flow *flow, u32 state)
{
	struct sonde_slot *slot = slot_at(flow);

	if (state == BPF_TCP_CLOSE_WAIT)
		flow->flags |= PEER_FIN;
	if (!slot)
		return;
	if (state != BPF_TCP_FIN_WAIT1 && state != BPF_TCP_LAST_ACK && state != BPF_TCP_CLOSE)
		return;
	if (flow->state >= REQUEST)
		cut_off(ops, flow, slot, state);
	if (state == BPF_TCP_CLOSE && flow->flags & COUNTED) {
		flow->flags &= ~COUNTED;
		ADD(slot->connections_closed, 1);
	}
}

#endif
