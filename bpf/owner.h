/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which slot counts a socket: {cgroup, local port} looked up once and remembered. */
#ifndef SONDE_OWNER_H
#define SONDE_OWNER_H

/* Finds the slot of a socket once and remembers it; looks again only after user space changed the owners. */
static __always_inline void match_owner(struct bpf_sock *sk, struct flow *flow, u32 local_port)
{
	u32 zero = 0;
	struct sonde_control *shared = control.lookup(&zero);
	struct sonde_key key = {.port = local_port};
	struct sonde_owner *owner;

	if (!shared || flow->epoch == shared->epoch)
		return;
	flow->epoch = shared->epoch;
	key.cgroup_id = bpf_sk_cgroup_id(sk);
	owner = owners.lookup(&key);
	if (!owner) {
		COUNT_DROP(resolve_missed);
		return;
	}
	flow->slot = owner->slot + 1;
	flow->generation = owner->generation;
}

static __always_inline struct sonde_slot *slot_at(const struct flow *flow)
{
	u32 index = flow->slot - 1;
	struct sonde_slot *slot;

	if (!flow->slot)
		return 0;
	slot = slots.lookup(&index);
	if (!slot)
		return 0;
	if (slot->generation == flow->generation)
		return slot;
	COUNT_DROP(stale_generation);
	return 0;
}

static __always_inline struct sonde_slot *slot_of(struct bpf_sock *sk, struct flow *flow, u32 local_port)
{
	struct sonde_slot *slot;

	slot = slot_at(flow);
	if (slot)
		return slot;
	if (flow->slot) { /* its pod is gone; the port may have a new owner */
		flow->slot = 0;
		flow->state = IDLE;
		flow->pending = 0;
		if (flow->flags & HTTP2) /* nobody will see the frames until then */
			flow->flags = (flow->flags & ~HTTP2) | OPAQUE;
		flow->flags &= ~COUNTED;
	}
	match_owner(sk, flow, local_port);
	slot = slot_at(flow);
	if (slot && sk->state != BPF_TCP_LISTEN) {
#ifndef SONDE_TEST
		flow->flags &= ~FROM_START; /* what it said before the match is not known */
#endif
		if (!(flow->flags & SERVER)) { /* at a serving port, and nobody saw it open: older than the programs */
			flow->flags |= SERVER | ADOPTED | COUNTED;
			ADD(slot->connections_adopted, 1);
		} else if (!(flow->flags & COUNTED)) {
			flow->flags |= COUNTED;
			ADD(slot->connections_opened, 1);
		}
	}
	return slot;
}

#endif
