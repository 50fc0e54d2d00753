/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Sends new TCP connections to a Service's address to one of its endpoints, by weights that user space keeps.
 *
 * Hooks: cgroup connect4 and connect6 rewrite the destination before the socket has one, so no packet is touched
 * afterwards; getpeername shows the address that was asked for; sock_ops takes the round trip of the handshake. An IPv4
 * address in an IPv6 socket (Java) comes by connect6 as ::ffff:a.b.c.d, which is how all addresses are kept here.
 *
 * Whatever is missing or old, a connection goes on untouched, to whoever balances Services otherwise. All programs
 * return "allow" whatever happens.
 */
#include <uapi/linux/bpf.h>
#include <uapi/linux/in.h>

#include "steer.h"
#include "base.h"

#define ALLOW	1
#define MAPPED	bpf_htonl(0xffff)
#define RTT_ONE 3 /* a new sample counts 1/2^3 */

struct steer_table {
	struct steer_head head;
	struct steer_slot slots[SONDE_STEER_SLOTS];
};

/* Of a socket: whom it asked for and whom it got. */
struct steer_origin {
	struct steer_key asked;
	struct steer_key given;
	u32 endpoint;
};

/* the shape of the tables; one is made anew for each change and put in the place of the last in one step */
BPF_TABLE("array", u32, struct steer_table, steer_shape, 1);
BPF_F_TABLE("array_of_maps$steer_shape", u32, u32, steer_tables, SONDE_STEER_TABLES, 0);
BPF_F_TABLE("hash", struct steer_key, struct steer_service, steer_services, SONDE_STEER_SERVICES, 0);
BPF_F_TABLE("hash", u64, u32, steer_skips, SONDE_STEER_SKIPS, BPF_F_NO_PREALLOC);
BPF_F_TABLE("array", u32, struct steer_pool, steer_pools, SONDE_STEER_POOLS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct steer_endpoint, steer_endpoints, SONDE_STEER_ENDPOINTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct steer_control, steer_control, 1, BPF_F_MMAPABLE);

struct steer_origins_table_t {
	int key;
	struct steer_origin leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct steer_origins_table_t steer_origins = {.flags = BPF_F_NO_PREALLOC};
BPF_ANNOTATE_KV_PAIR(steer_origins, int, struct steer_origin);

static __always_inline bool is_same(const struct steer_key *a, const struct steer_key *b)
{
	return a->address[3] == b->address[3] && a->address[0] == b->address[0] && a->address[1] == b->address[1] &&
	       a->address[2] == b->address[2] && a->port == b->port;
}

static __always_inline void set_key(struct steer_key *key, const struct steer_slot *slot)
{
	key->address[0] = slot->address[0];
	key->address[1] = slot->address[1];
	key->address[2] = slot->address[2];
	key->address[3] = slot->address[3];
	key->port = slot->port;
}

/* Nobody says which endpoints are alive. */
static __always_inline bool is_stale(void)
{
	u32 zero = 0;
	struct steer_control *control = steer_control.lookup(&zero);
	u64 beat = control ? control->heartbeat_ns : 0;

	/* another processor's clock may be a little ahead of this one's */
	return !beat || (s64)(bpf_ktime_get_ns() - beat) > (s64)SONDE_STEER_STALE_MS * 1000000;
}

/* Whether the client is to be left alone, counted. */
static __always_inline bool is_skipped(struct steer_pool *pool)
{
	u64 client = bpf_get_current_cgroup_id();
	u32 *why = steer_skips.lookup(&client);

	if (!why)
		return false;
	if (*why == SONDE_STEER_SKIP_MESH)
		ADD(pool->client_mesh, 1);
	else
		ADD(pool->client_label, 1);
	return true;
}

/* One endpoint, by weight. The upper half of the product is the column, the lower half where in it. */
static __always_inline struct steer_slot *pick(u32 table)
{
	u32 zero = 0, column, alias;
	struct steer_slot *slot;
	struct steer_table *columns;
	u64 drawn;
	void *inner = steer_tables.lookup(&table);

	if (!inner)
		return 0;
	columns = bpf_map_lookup_elem(inner, &zero);
	if (!columns)
		return 0;
	drawn = (u64)bpf_get_prandom_u32() * columns->head.count;
	column = drawn >> 32;
	KEEP(column);
	if (!columns->head.count || column >= SONDE_STEER_SLOTS)
		return 0;
	ADD(columns->head.picks, 1);
	slot = &columns->slots[column];
	if ((u32)drawn < slot->threshold)
		return slot;
	alias = slot->alias;
	KEEP(alias);
	return alias < SONDE_STEER_SLOTS ? &columns->slots[alias] : 0;
}

static __always_inline bool remember(struct bpf_sock_addr *ctx, const struct steer_key *asked,
				     const struct steer_slot *slot)
{
	struct bpf_sock *sk = ctx->sk;
	struct steer_origin *origin;

	if (!sk)
		return false;
	origin = steer_origins.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!origin)
		return false;
	origin->asked = *asked;
	set_key(&origin->given, slot);
	origin->endpoint = slot->endpoint;
	return true;
}

/* Where a connection to `asked` shall go; 0: where it was going. */
static __always_inline struct steer_slot *destination(struct bpf_sock_addr *ctx, struct steer_key *asked)
{
	struct steer_service *service = steer_services.lookup(asked);
	struct steer_endpoint *endpoint;
	struct steer_pool *pool;
	struct steer_slot *slot;
	u32 index;

	if (!service)
		return 0;
	index = service->pool;
	pool = steer_pools.lookup(&index);
	if (!pool || is_skipped(pool))
		return 0;
	if (is_stale()) {
		ADD(pool->stale, 1);
		return 0;
	}
	slot = pick(service->table);
	if (!slot) {
		ADD(pool->no_endpoint, 1);
		return 0;
	}
	if (!remember(ctx, asked, slot)) {
		ADD(pool->no_memory, 1);
		return 0;
	}
	index = slot->endpoint;
	endpoint = steer_endpoints.lookup(&index);
	if (endpoint)
		ADD(endpoint->connections, 1);
	ADD(pool->steered, 1);
	return slot;
}

int sonde_connect4(struct bpf_sock_addr *ctx)
{
	struct steer_key asked = {};
	struct steer_slot *slot;

	if (ctx->protocol != IPPROTO_TCP)
		return ALLOW;
	asked.address[2] = MAPPED;
	asked.address[3] = ctx->user_ip4;
	asked.port = ctx->user_port;
	slot = destination(ctx, &asked);
	if (!slot)
		return ALLOW;
	ctx->user_ip4 = slot->address[3];
	ctx->user_port = slot->port;
	return ALLOW;
}

int sonde_connect6(struct bpf_sock_addr *ctx)
{
	struct steer_key asked = {};
	struct steer_slot *slot;

	if (ctx->protocol != IPPROTO_TCP)
		return ALLOW;
	asked.address[0] = ctx->user_ip6[0];
	asked.address[1] = ctx->user_ip6[1];
	asked.address[2] = ctx->user_ip6[2];
	asked.address[3] = ctx->user_ip6[3];
	asked.port = ctx->user_port;
	slot = destination(ctx, &asked);
	if (!slot)
		return ALLOW;
	ctx->user_ip6[0] = slot->address[0];
	ctx->user_ip6[1] = slot->address[1];
	ctx->user_ip6[2] = slot->address[2];
	ctx->user_ip6[3] = slot->address[3];
	ctx->user_port = slot->port;
	return ALLOW;
}

/* What the socket asked for, where it still has the peer that it was given: it may have connected again elsewhere. */
static __always_inline struct steer_key *asked_for(struct bpf_sock_addr *ctx, const struct steer_key *peer)
{
	struct bpf_sock *sk = ctx->sk;
	struct steer_origin *origin;

	if (!sk)
		return 0;
	origin = steer_origins.sk_storage_get(sk, 0, 0);
	return origin && is_same(&origin->given, peer) ? &origin->asked : 0;
}

int sonde_getpeername4(struct bpf_sock_addr *ctx)
{
	struct steer_key peer = {}, *asked;

	peer.address[2] = MAPPED;
	peer.address[3] = ctx->user_ip4;
	peer.port = ctx->user_port;
	asked = asked_for(ctx, &peer);
	if (!asked)
		return ALLOW;
	ctx->user_ip4 = asked->address[3];
	ctx->user_port = asked->port;
	return ALLOW;
}

int sonde_getpeername6(struct bpf_sock_addr *ctx)
{
	struct steer_key peer = {}, *asked;

	peer.address[0] = ctx->user_ip6[0];
	peer.address[1] = ctx->user_ip6[1];
	peer.address[2] = ctx->user_ip6[2];
	peer.address[3] = ctx->user_ip6[3];
	peer.port = ctx->user_port;
	asked = asked_for(ctx, &peer);
	if (!asked)
		return ALLOW;
	ctx->user_ip6[0] = asked->address[0];
	ctx->user_ip6[1] = asked->address[1];
	ctx->user_ip6[2] = asked->address[2];
	ctx->user_ip6[3] = asked->address[3];
	ctx->user_port = asked->port;
	return ALLOW;
}

/* The handshake of a steered connection says how far its endpoint is. */
int sonde_steer_established(struct bpf_sock_ops *ops)
{
	struct steer_endpoint *endpoint;
	struct steer_origin *origin;
	struct bpf_sock *sk;
	u64 sample, before;
	u32 index;

	if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return ALLOW;
	sk = ops->sk;
	if (!sk)
		return ALLOW;
	origin = steer_origins.sk_storage_get(sk, 0, 0);
	if (!origin)
		return ALLOW;
	index = origin->endpoint;
	endpoint = steer_endpoints.lookup(&index);
	/* the place may be another endpoint's by now */
	if (!endpoint || endpoint->address[3] != origin->given.address[3] || endpoint->port != origin->given.port)
		return ALLOW;
	sample = ops->srtt_us ? ops->srtt_us : 1;
	before = endpoint->rtt_eighth_us;
	endpoint->rtt_eighth_us = before ? before - (before >> RTT_ONE) + (sample >> RTT_ONE) : sample;
	ADD(endpoint->handshakes, 1);
	return ALLOW;
}
