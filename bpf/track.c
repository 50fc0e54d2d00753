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
#include "base.h"
#include "packet.h"
#include "flow.h"
#include "http1.h"
#include "skim.h"
#include "maps.h"
#include "histogram.h"
#include "owner.h"
#include "turns.h"
#include "chunks.h"
#include "streams.h"
#include "frames.h"
#include "request.h"
#include "header.h"
#include "response.h"
#include "connection.h"
#include "calls.h"

#define PASS 1

/* What every packet program knows before it looks at what was said. */
struct scene {
	struct bpf_sock *sk;
	struct flow *flow;
	struct sonde_slot *slot;
	struct segment segment;
};

/* False where the packet is none of ours. */
static __always_inline bool find_scene(struct __sk_buff *skb, struct scene *scene, bool in)
{
	struct segment *segment = &scene->segment;

	scene->sk = skb->sk;
	if (!scene->sk)
		return false;
	scene->sk = bpf_sk_fullsock(scene->sk);
	if (!scene->sk)
		return false;
	switch (parse_segment(skb, segment)) {
	case PARSE_OTHER:
		return false;
	case PARSE_SHORT:
		COUNT_DROP(packet_short);
		return false;
	case PARSE_TCP:
		break;
	}
	scene->flow = flow_of(scene->sk, in ? segment->sport : segment->dport);
	if (!scene->flow) {
		COUNT_DROP(storage_failed);
		return false;
	}
	if (scene->flow->flags & CLIENT)
		return false;
	scene->slot = slot_of(scene->sk, scene->flow, in ? segment->dport : segment->sport);
	return scene->slot;
}

/* Frames are walked elsewhere; where that place is empty, they were shed, and so they are where it cannot be reached.
 */
static __always_inline void to_frames(struct __sk_buff *skb, struct flow *flow, struct sonde_slot *slot, bool in,
				      bool again)
{
	if (!is_shed(SONDE_SHED_HTTP2))
		continuations.call(skb, in ? FRAMES_IN : FRAMES_OUT);
	if (again)
		COUNT_DROP(http2_flooded);
	else
		COUNT_DROP(http2_shed);
	go_opaque(flow, slot);
}

/* As to_frames(), for a connection that is not there yet. */
static __always_inline void to_early_frames(struct __sk_buff *skb, struct flow *flow)
{
	if (!is_shed(SONDE_SHED_HTTP2))
		continuations.call(skb, FRAMES_IN);
	flow->http2.early = EARLY_LOST;
}

static __always_inline void on_ingress(struct __sk_buff *skb)
{
	struct scene scene = {};
	struct segment *segment = &scene.segment;
	struct sonde_slot *slot;
	struct flow *flow;
	u64 now;

	if (!find_scene(skb, &scene, true))
		return;
	flow = scene.flow;
	slot = scene.slot;
	if (scene.sk->state == BPF_TCP_LISTEN) {
		if (at_listener(skb, segment, flow, slot))
			to_early_frames(skb, flow);
		return;
	}
	if (segment->flags & TCP_RST) {
		flow->flags |= PEER_RST;
		ADD(slot->resets_in, 1);
	}
	if (segment->len && in_order(scene.sk, flow, slot, segment)) {
		now = now_ns();
		ADD(slot->rx_bytes, segment->len);
		if (!flow->arrived_ns)
			flow->arrived_ns = now;
		if (flow->flags & OPAQUE) {
			if (!is_shed(SONDE_SHED_TURNS))
				turn_in(skb, segment, flow, now);
			flow->last_in_ns = now;
		} else if (flow->flags & HTTP2) {
			flow->http2.in.at = segment->overlap;
			flow->last_in_ns = now;
			to_frames(skb, flow, slot, true, false);
		} else {
			follow_request(skb, segment, flow, slot, now);
			if (flow->flags & HTTP2)
				to_frames(skb, flow, slot, true, false);
		}
	}
	if (flow->flags & ADOPTED && segment->flags & (TCP_FIN | TCP_RST))
		on_adopted_end(flow, slot, segment->flags, false);
}

/* To where the rest of a segment of a response is looked at. */
static __always_inline void go_on(struct __sk_buff *skb, struct flow *flow, struct sonde_slot *slot, enum follow follow)
{
	if (follow == TO_HEADER) {
		continuations.call(skb, MORE_HEADER);
	} else if (follow == TO_CHUNKS) {
		continuations.call(skb, MORE_CHUNKS);
	} else if (follow == TO_NEXT) {
		continuations.call(skb, NEXT_REQUEST);
	} else if (follow == TO_FRAMES) {
		to_frames(skb, flow, slot, false, false);
	}
}

static __always_inline void on_egress(struct __sk_buff *skb)
{
	struct scene scene = {};
	struct segment *segment = &scene.segment;
	enum follow follow = FOLLOWED;
	struct sonde_slot *slot;
	struct flow *flow;

	if (!find_scene(skb, &scene, false))
		return;
	flow = scene.flow;
	slot = scene.slot;
	if (scene.sk->state == BPF_TCP_LISTEN) {
		if ((segment->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
			ADD(slot->syn_acks, 1);
		return;
	}
	if (segment->flags & TCP_RST) {
		flow->flags |= OWN_RST;
		ADD(slot->resets_out, 1);
	}
	if (segment->len && is_new(flow, slot, segment)) {
		if (!(flow->flags & OPAQUE))
			follow = follow_response(skb, segment, scene.sk, flow, slot, now_ns());
		else if (!is_shed(SONDE_SHED_TURNS))
			turn_out(skb, segment, flow, slot, now_ns());
	}
	if (flow->flags & ADOPTED && segment->flags & (TCP_FIN | TCP_RST))
		on_adopted_end(flow, slot, segment->flags, true);
	go_on(skb, flow, slot, follow);
}

int sonde_ingress(struct __sk_buff *skb)
{
	on_ingress(skb);
	return PASS;
}

int sonde_egress(struct __sk_buff *skb)
{
	on_egress(skb);
	return PASS;
}

/* From here on: reached by tail call, again and again for one segment. */
int sonde_header(struct __sk_buff *skb)
{
	struct scene scene = {};
	enum follow follow;

	if (find_scene(skb, &scene, false)) {
		follow = follow_window(skb, &scene.segment, scene.flow, scene.slot, scene.flow->last_out_ns);
		go_on(skb, scene.flow, scene.slot, follow);
	}
	return PASS;
}

int sonde_chunks(struct __sk_buff *skb)
{
	struct scene scene = {};
	struct flow *flow;
	enum walked walked;
	enum follow follow;

	if (!find_scene(skb, &scene, false))
		return PASS;
	flow = scene.flow;
	if (flow->body_due) {
		flow->body_due = 0;
		follow = follow_body(skb, &scene.segment, scene.sk, flow, scene.slot,
				     word_of(skb, &scene.segment, flow->body_offset), flow->last_out_ns);
	} else {
		walked = walk_chunks(skb, &scene.segment, flow);
		follow = after_walk(skb, &scene.segment, scene.sk, flow, scene.slot, walked, flow->last_out_ns);
	}
	if (follow != TO_CHUNKS) {
		go_on(skb, flow, scene.slot, follow);
		return PASS;
	}
	continuations.call(skb, MORE_CHUNKS);
	/* too many for tail calls to lead to: go on without their sizes */
	COUNT_DROP(too_many_chunks);
	flow->chunk_phase = CHUNK_SOMEWHERE;
	if (ends_with_last_chunk(skb, &scene.segment, flow))
		complete_request(scene.sk, flow, scene.slot, flow->last_out_ns);
	return PASS;
}

int sonde_next(struct __sk_buff *skb)
{
	struct scene scene = {};
	enum follow follow;

	if (find_scene(skb, &scene, false)) {
		follow = follow_next(skb, &scene.segment, scene.flow, scene.slot, now_ns());
		go_on(skb, scene.flow, scene.slot, follow);
	}
	return PASS;
}

static __always_inline void on_frames(struct __sk_buff *skb, bool in)
{
	struct scene scene = {};
	bool early;

	if (!find_scene(skb, &scene, in))
		return;
	early = in && scene.sk->state == BPF_TCP_LISTEN;
	switch (walk_frames(skb, &scene.segment, scene.flow, scene.slot, in, early)) {
	case WALKED:
	case AT_END:
		break;
	case MORE_STEPS:
		if (early)
			to_early_frames(skb, scene.flow);
		else
			to_frames(skb, scene.flow, scene.slot, in, true);
		break;
	case OUT_OF_STEP:
		if (early) {
			scene.flow->http2.early = EARLY_LOST;
			break;
		}
		COUNT_DROP(http2_bad_frame);
		go_opaque(scene.flow, scene.slot);
		break;
	}
}

int sonde_frames_in(struct __sk_buff *skb)
{
	on_frames(skb, true);
	return PASS;
}

int sonde_frames_out(struct __sk_buff *skb)
{
	on_frames(skb, false);
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
			on_state(sk, flow, ops->args[1]);
		break;
	}
	return PASS;
}

/* tp_btf/sock_send_length and sock_recv_length: (sk, returned, flags) of a call that is over. */
int sonde_write(u64 *call)
{
	struct flow *flow;
	struct sonde_slot *slot;
	s32 returned = call[1];

	if (returned <= 0)
		return 0;
	flow = called_flow((void *)call[0]);
	slot = flow ? slot_at(flow) : 0;
	if (slot)
		on_write(flow, slot, returned);
	return 0;
}

int sonde_read(u64 *call)
{
	struct flow *flow;
	struct sonde_slot *slot;
	s32 returned = call[1];

	if (returned <= 0 || call[2] & MSG_PEEK_FLAG)
		return 0;
	flow = called_flow((void *)call[0]);
	slot = flow ? slot_at(flow) : 0;
	if (slot)
		on_read(flow, slot);
	return 0;
}
