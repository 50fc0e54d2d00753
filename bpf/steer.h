/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What steering shares with user space, and nothing else.
 *
 * agent/kernel/steer_layout.py reads the structs and the SONDE_STEER_ numbers of this file, in the same form as
 * wire.h: u64, s64, u32 and arrays of them, one a line. Addresses are IPv6 in network order, IPv4 ones as
 * ::ffff:a.b.c.d; ports are network order too. Change anything here and SONDE_STEER_LAYOUT must go up by one.
 */
#ifndef SONDE_STEER_H
#define SONDE_STEER_H

#define SONDE_STEER_LAYOUT    1
#define SONDE_STEER_SLOTS     4096 /* endpoints of one table */
#define SONDE_STEER_SERVICES  1024 /* address and port of a Service */
#define SONDE_STEER_TABLES    1024
#define SONDE_STEER_POOLS     256
#define SONDE_STEER_ENDPOINTS 16384 /* of all tables, and of those lately replaced */
#define SONDE_STEER_SKIPS     65536 /* cgroups of clients that are left alone */
#define SONDE_STEER_STALE_MS  3000  /* after the last heartbeat nobody looks after the tables any more */

/* why a client is left alone */
#define SONDE_STEER_SKIP_LABEL 1
#define SONDE_STEER_SKIP_MESH  2

struct steer_key {
	u32 address[4];
	u32 port;
};

struct steer_service {
	u32 table;
	u32 pool;
};

/* One column of an alias table: below the threshold this endpoint, else the one of the column `alias`. */
struct steer_slot {
	u32 address[4];
	u32 port;
	u32 threshold;
	u32 alias;
	u32 endpoint; /* index of its counts */
};

/* What stands before the columns of a table. */
struct steer_head {
	u32 count; /* columns in use */
	u32 pad;
	u64 picks; /* connections it gave an endpoint; user space reads the last of it when another is in its place */
	u64 reserved[2];
};

/* Connections to a pool's Services, by what became of them. */
struct steer_pool {
	u64 name; /* which pool this is, as user space hashes it; 0: none */
	u64 steered;
	u64 stale;	  /* untouched: no heartbeat */
	u64 no_endpoint;  /* untouched: no table, or nobody in it */
	u64 client_label; /* untouched: the client's pod says so */
	u64 client_mesh;  /* untouched: the client's pod has a sidecar that needs the Service's address */
	u64 no_memory;	  /* untouched: the client would not have seen whom it called */
};

struct steer_endpoint {
	u64 connections;   /* sent there */
	u64 handshakes;	   /* of those: established */
	u64 rtt_eighth_us; /* smoothed round trip of the handshakes, in eighths of a microsecond; 0 unknown */
	u32 address[4];
	u32 port;
	u32 used;
};

struct steer_control {
	u64 heartbeat_ns; /* CLOCK_MONOTONIC; 0: nobody looks after the tables */
};

#endif
