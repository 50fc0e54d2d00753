/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Connections opened and closed, and the requests that end with them. */
#ifndef SONDE_CONNECTION_H
#define SONDE_CONNECTION_H

/* The copy of the listener's storage becomes a connection's own. */
static __always_inline void start_flow(struct flow *flow)
{
	flow->flags = SERVER | FROM_START;
	flow->state = IDLE;
	flow->early_port = 0;
	flow->pending = 0;
	flow->turn = QUIET;
	flow->arrived_ns = 0;
	flow->last_out_ns = 0;
	flow->sent = 0;
	flow->written = 0;
	flow->data_left = 0;
}

/* The preface came with the third ACK, whole or as far as it fitted, and perhaps frames with it. */
static __always_inline void on_early_preface(struct flow *flow, struct sonde_slot *slot)
{
	if (flow->head_len < HEAD_BYTES)
		return;
	flow->state = IDLE;
	if (!is_preface(flow->head)) {
		COUNT_DROP(not_http);
		go_opaque(flow, slot);
		return;
	}
	ADD(slot->connections_http2, 1);
	if (flow->http2.early == EARLY_LOST) {
		COUNT_DROP(http2_out_of_step);
		go_opaque(flow, slot);
		return;
	}
	flow->flags |= HTTP2;
	begin_early(flow, slot, flow->start_ns);
}

static __always_inline void on_established(struct bpf_sock_ops *ops, struct flow *flow)
{
	u16 peer_port = bpf_ntohl(ops->remote_port);
	u32 early_len = flow->remaining;
	/* of this very client, and the first of its bytes: what follows them may have overtaken them */
	bool early = flow->early_port == peer_port && flow->in_end - early_len == ops->rcv_nxt;
	struct sonde_slot *slot = slot_at(flow);

	start_flow(flow);
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
	flow->flags |= IN_KNOWN;
	ADD(slot->rx_bytes, early_len);
	flow->last_in_ns = flow->start_ns;
	flow->arrived_ns = flow->start_ns;
	flow->state = PREFIX;
	if (flow->head_len < 4)
		return;
	if (begins_preface(flow->head)) {
		on_early_preface(flow, slot);
		return;
	}
	if (!is_method(flow->head)) {
		COUNT_DROP(not_http);
		go_opaque(flow, slot);
		return;
	}
	classify(flow);
	begin_request(flow, slot, flow->start_ns);
}

/* The client went, and not just with its own half of the connection. */
static __always_inline bool client_left(const struct flow *flow)
{
	return flow->flags & PEER_RST || (flow->flags & (PEER_FIN | ANSWERED_FIN)) == PEER_FIN;
}

/*
 * A response cut off by the end of its connection. Without a length or chunks the server's FIN is its proper end,
 * unless the client had gone first.
 */
static __always_inline void cut_off(struct flow *flow, struct sonde_slot *slot, bool server_fin)
{
	bool to_close = flow->state == BODY && flow->remaining == LENGTH_UNKNOWN && !(flow->flags & CHUNKED);

	if (to_close && server_fin && !client_left(flow)) {
		count_complete(flow, slot, bpf_ktime_get_ns());
		return;
	}
	leave(flow, slot);
	flow->state = IDLE;
	if (!counts(flow))
		return;
	if (flow->flags & (PEER_FIN | PEER_RST))
		ADD(slot->client_aborted, 1);
	else
		ADD(slot->server_aborted, 1);
}

static __always_inline void cut_off_all(struct flow *flow, struct sonde_slot *slot, bool server_fin)
{
	if (flow->flags & HTTP2)
		end_streams(flow, slot,
			    flow->flags & (PEER_FIN | PEER_RST) ? &slot->client_aborted : &slot->server_aborted);
	else if (flow->state >= REQUEST)
		cut_off(flow, slot, server_fin);
}

/* A reset of our own is sent after the state changed, so that it shows only by nothing having been sent in vain. */
static __always_inline void count_closed(struct flow *flow, struct sonde_slot *slot, bool in_vain)
{
	if (!(flow->flags & COUNTED))
		return;
	flow->flags &= ~COUNTED;
	ADD(slot->connections_closed, 1);
	if (flow->flags & PEER_RST)
		ADD(slot->reset_by_client, 1);
	else if (in_vain)
		ADD(slot->timed_out, 1);
	else if (flow->flags & OWN_FIN && !(flow->flags & OWN_RST))
		ADD(slot->closed_by_server, 1);
	else if (flow->flags & PEER_FIN && !(flow->flags & OWN_RST))
		ADD(slot->closed_by_client, 1);
	else
		ADD(slot->reset_by_server, 1);
}

static __always_inline void on_state(struct bpf_sock *sk, struct flow *flow, u32 state)
{
	struct sonde_slot *slot = slot_at(flow);
	struct bpf_tcp_sock *tcp;

	/* whoever closes second does not count as having closed */
	if (state == BPF_TCP_CLOSE_WAIT)
		flow->flags |= PEER_FIN;
	if (state == BPF_TCP_FIN_WAIT1)
		flow->flags |= OWN_FIN;
	if (!slot)
		return;
	if (state != BPF_TCP_FIN_WAIT1 && state != BPF_TCP_LAST_ACK && state != BPF_TCP_CLOSE)
		return;
	cut_off_all(flow, slot, state != BPF_TCP_CLOSE);
	if (state != BPF_TCP_CLOSE)
		return;
	tcp = bpf_tcp_sock(sk);
	count_closed(flow, slot, tcp && tcp->icsk_retransmits);
}

/*
 * A socket older than the programs tells nobody of its states: its own FIN, or a reset of either side, is the end. The
 * client's FIN alone may be a half-close.
 */
static __always_inline void on_adopted_end(struct flow *flow, struct sonde_slot *slot, u8 tcp_flags, bool ours)
{
	if (tcp_flags & TCP_FIN && !ours)
		flow->flags |= PEER_FIN;
	if (!(tcp_flags & TCP_RST) && !(tcp_flags & TCP_FIN && ours))
		return;
	if (ours && tcp_flags & TCP_FIN && !(flow->flags & PEER_FIN))
		flow->flags |= OWN_FIN;
	cut_off_all(flow, slot, tcp_flags & TCP_FIN);
	count_closed(flow, slot, false);
}

#endif
