/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Follows every request of every known serving port, on the server's side of the connection.
 *
 * Hooks, and why these: cgroup_skb ingress and egress see each segment of a socket with the socket itself,
 * on the pod's own side only, before GSO and after GRO, since kernel 4.10; sock_ops tells of connections
 * established and closed (4.13). They use UAPI structs alone, so one build from any header set is right on
 * every kernel. All three return "pass" whatever happens.
 *
 * bcc rewrites table calls in one file only, so probes.py puts the quoted headers in place before it compiles.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/tcp.h>

#include "wire.h"
#include "histogram.h"
#include "packet.h"
#include "flow.h"
#include "http1.h"
#include "skim.h"
#include "maps.h"
#include "owner.h"
#include "request.h"
#include "response.h"
#include "connection.h"

#define PASS 1

static __always_inline void on_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct segment segment = {};
	struct sonde_slot *slot;
	struct flow *flow;
	u64 now;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	switch (parse_segment(skb, &segment)) {
	case PARSE_OTHER:
		return;
	case PARSE_SHORT:
		COUNT_DROP(packet_short);
		return;
	case PARSE_TCP:
		break;
	}
	flow = flow_of(sk, segment.sport);
	if (!flow) {
		COUNT_DROP(storage_failed);
		return;
	}
	if (flow->flags & CLIENT)
		return;
	slot = slot_of(sk, flow, segment.dport);
	if (!slot)
		return;
	if (sk->state == BPF_TCP_LISTEN) {
		at_listener(skb, &segment, flow, slot);
		return;
	}
	if (segment.flags & TCP_RST) {
		flow->flags |= PEER_RST;
		ADD(slot->resets_in, 1);
	}
	if (!segment.len || !in_order(sk, flow, &segment))
		return;
	now = now_ns();
	ADD(slot->rx_bytes, segment.len);
	if (!(flow->flags & OPAQUE))
		follow_request(skb, &segment, flow, slot, now);
}

static __always_inline void on_egress(struct __sk_buff *skb, bool continued)
{
	struct bpf_sock *sk = skb->sk;
	struct segment segment = {};
	struct sonde_slot *slot;
	struct flow *flow;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	switch (parse_segment(skb, &segment)) {
	case PARSE_OTHER:
		return;
	case PARSE_SHORT:
		COUNT_DROP(packet_short);
		return;
	case PARSE_TCP:
		break;
	}
	flow = flow_of(sk, segment.dport);
	if (!flow) {
		COUNT_DROP(storage_failed);
		return;
	}
	if (flow->flags & CLIENT)
		return;
	slot = slot_of(sk, flow, segment.sport);
	if (!slot)
		return;
	if (continued) {
		if (follow_window(skb, &segment, sk, flow, slot, flow->last_out_ns) == MORE_WINDOWS)
			continuations.call(skb, 0);
		return;
	}
	if (sk->state == BPF_TCP_LISTEN) {
		if ((segment.flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
			ADD(slot->syn_acks, 1);
		return;
	}
	if (segment.flags & TCP_RST)
		ADD(slot->resets_out, 1);
	if (!segment.len || !is_new(flow, slot, &segment))
		return;
	ADD(slot->tx_bytes, segment.len);
	if (!(flow->flags & OPAQUE) && follow_response(skb, &segment, sk, flow, slot, now_ns()) == MORE_WINDOWS)
		continuations.call(skb, 0);
}

int sonde_ingress(struct __sk_buff *skb)
{
	on_ingress(skb);
	return PASS;
}

int sonde_egress(struct __sk_buff *skb)
{
	on_egress(skb, false);
	return PASS;
}

/* Reached by tail call: the rest of a segment, a window at a time. */
int sonde_egress_more(struct __sk_buff *skb)
{
	on_egress(skb, true);
	return PASS;
}

int sonde_lifecycle(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct flow *flow;

	if (!sk)
		return PASS;
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		flow = flows.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (flow)
			flow->flags |= CLIENT;
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		flow = flows.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (flow)
			on_established(ops, flow);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		flow = flows.sk_storage_get(sk, 0, 0);
		if (flow && flow->flags & SERVER)
			on_state(ops, flow, ops->args[1]);
		break;
	}
	return PASS;
}
