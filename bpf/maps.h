/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The tables, and the two things a test replaces: the clock and where a flow lives. */
#ifndef SONDE_MAPS_H
#define SONDE_MAPS_H

#ifndef SONDE_MAX_SLOTS
#define SONDE_MAX_SLOTS 1024 /* serving ports of one node */
#endif
#ifndef SONDE_MAX_OWNERS
#define SONDE_MAX_OWNERS 16384 /* slots x cgroups of a pod (sandbox, containers, nested ones) */
#endif
#define SONDE_MAX_CLASSES 64
#ifndef SONDE_MAX_STREAMS
#define SONDE_MAX_STREAMS 16384 /* HTTP/2 streams in flight on one node; those of closed connections go first */
#endif

/* what `continuations` holds */
enum continuation { MORE_HEADER, MORE_CHUNKS, NEXT_REQUEST, FRAMES_IN, FRAMES_OUT, CONTINUATIONS };

struct class_prefix {
	u32 bits;
	u8 bytes[SONDE_CLASS_PREFIX_BYTES];
};

BPF_F_TABLE("array", u32, struct sonde_slot, slots, SONDE_MAX_SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("hash", struct sonde_key, struct sonde_owner, owners, SONDE_MAX_OWNERS, 0);
BPF_F_TABLE("lpm_trie", struct class_prefix, u32, classes, SONDE_MAX_CLASSES, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", u32, struct sonde_control, control, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct sonde_counters, counters, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("prog", u32, u32, continuations, CONTINUATIONS, 0);
BPF_F_TABLE("lru_hash", struct stream_key, struct stream, streams, SONDE_MAX_STREAMS, 0);

/* BPF_F_CLONE: an accepted socket starts with a copy of its listener's storage, its slot included. */
struct flows_table_t {
	int key;
	struct flow leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct flows_table_t flows = {.flags = BPF_F_NO_PREALLOC | BPF_F_CLONE};
BPF_ANNOTATE_KV_PAIR(flows, int, struct flow);

#ifdef SONDE_TEST
/*
 * BPF_PROG_TEST_RUN makes a new socket for each packet and cannot set the clock. A sequence of packets
 * needs one flow, keyed by the client's port here, and times that a test can state.
 */
BPF_HASH(test_flows, u32, struct flow, 16384);
BPF_ARRAY(test_blank, struct flow, 1); /* too large for the stack */
BPF_ARRAY(test_clock, u64, 1);
#endif

static __always_inline u64 now_ns(void)
{
#ifdef SONDE_TEST
	u32 zero = 0;
	u64 *clock = test_clock.lookup(&zero);

	return clock ? *clock : 0;
#else
	return bpf_ktime_get_ns();
#endif
}

static __always_inline struct flow *flow_of(struct bpf_sock *sk, u32 client_port)
{
#ifdef SONDE_TEST
	u32 zero = 0;
	struct flow *flow = test_flows.lookup(&client_port), *blank = test_blank.lookup(&zero);

	if (flow || !blank)
		return flow;
	test_flows.update(&client_port, blank);
	flow = test_flows.lookup(&client_port);
	if (flow)
		flow->flags = SERVER | FROM_START;
	return flow;
#else
	struct flow *flow = flows.sk_storage_get(sk, 0, 0);

	return flow ? flow : flows.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
#endif
}

static __always_inline struct sonde_counters *drops(void)
{
	u32 zero = 0;

	return counters.lookup(&zero);
}

/* Has user space asked to leave this out? */
static __always_inline bool is_shed(u64 what)
{
	u32 zero = 0;
	struct sonde_control *shared = control.lookup(&zero);

	return shared && shared->shed & what;
}

#define COUNT_DROP(cause)                                                                                              \
	do {                                                                                                           \
		struct sonde_counters *causes = drops();                                                               \
		if (causes)                                                                                            \
			ADD(causes->cause, 1);                                                                         \
	} while (0)

/* Tells the streams of two connections apart. */
static __always_inline u64 connection_id(struct __sk_buff *skb, u32 client_port)
{
#ifdef SONDE_TEST
	return client_port;
#else
	return bpf_get_socket_cookie(skb);
#endif
}

/* A segment's first bytes into `to`; false, counted, where the packet does not give them. */
static __always_inline bool load(struct __sk_buff *skb, u32 offset, void *to, u32 n)
{
	if (bpf_skb_load_bytes(skb, offset, to, n) == 0)
		return true;
	COUNT_DROP(payload_unread);
	return false;
}

#endif
