/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the kernel remembers of one connection, in its socket's own storage. */
#ifndef SONDE_FLOW_H
#define SONDE_FLOW_H

enum flow_state {
	IDLE,	 /* between requests */
	PREFIX,	 /* a request began, too few bytes yet to know its path class */
	REQUEST, /* request counted, nothing of the final response yet */
	HEADER,	 /* inside the final (or an interim) response header */
	BODY,	 /* inside the response body */
};

enum flow_flag {
	SERVER = 1 << 0, /* accepted; connected sockets are never followed */
	CLIENT = 1 << 1,
	COUNTED = 1 << 2,    /* in connections_opened, so it belongs into connections_closed */
	FROM_START = 1 << 3, /* followed since it was established */
	OPAQUE = 1 << 4,
	IN_KNOWN = 1 << 5, /* in_end is valid */
	OUT_KNOWN = 1 << 6,
	PEER_FIN = 1 << 7, /* the client closed its side, or both */
	PEER_RST = 1 << 8,
	HEAD_METHOD = 1 << 9, /* the response has no body whatever its header says */
	CHUNKED = 1 << 10,
	EVENTS = 1 << 11, /* content-type: text/event-stream */
	DATA_SEEN = 1 << 12,
	EXCLUDED = 1 << 13,
	CLASSIFIED = 1 << 14, /* head, HEAD_METHOD and EXCLUDED are those of the last request */
};

#define LENGTH_UNKNOWN (~0ULL)
#define HEAD_BYTES     SONDE_CLASS_PREFIX_BYTES

/*
 * Scratch of skim_header(). It lives here because a program's stack is 512 bytes, and because the verifier
 * forgets what it knew of a value that was stored in a map: on the stack it would follow each combination of
 * lines apart. Only egress uses it, which runs with the socket locked.
 */
#define BLOCKS	   4 /* of 64 bytes; vLLM's header takes 163 */
#define SKIM_WORDS (8 * BLOCKS + 1)

struct skim {
	u64 words[SKIM_WORDS]; /* the segment's first bytes; what lies behind them is of an earlier response */
	u64 newlines[BLOCKS];  /* bit i of block j: byte 64 j + i is one */
	u64 left;	       /* of the block being looked at */
	u64 length_at;	       /* payload offsets of the lines that matter; 0: not there */
	u64 twice;	       /* not 0: there may be two lengths */
	u64 type_at;
	u64 encoding_at;
};

struct flow {
	u64 generation; /* of the slot when the socket was matched to it */
	u64 epoch;	/* of the last look-up that found no owner */
	u64 start_ns;	/* first byte of the request */
	u64 last_in_ns;
	u64 last_out_ns;
	u64 next_start_ns; /* first byte of a pipelined request; 0: none */
	u64 remaining;	   /* body bytes to come, from content-length */
	u64 window_high;   /* the 16 bytes last scanned, lower-cased; oldest first */
	u64 window;
	u64 raw;	 /* the 8 bytes last scanned, as they are */
	u64 tail;	 /* the last 8 bytes of the response so far */
	u32 slot;	 /* index + 1; 0: no owner */
	u32 in_end;	 /* sequence number after the last request byte taken in order */
	u32 out_end;	 /* sequence number after the last response byte sent */
	u32 scan_offset; /* payload offset of the next window */
	u32 body_offset; /* where the body begins in this segment */
	u16 flags;
	u16 early_port; /* on a listener: whose request came with the third ACK */
	u8 state;
	u8 windows;    /* read of this header */
	u8 digits;     /* the scan is inside content-length's digits */
	u8 has_length; /* 0, 1, or 3 for more than one */
	u8 head_len;
	u8 pad[1];
	u16 status; /* 0: not yet known */
	struct skim skim;
	u8 head[2 * HEAD_BYTES]; /* first bytes of the request, then of the response; twice the size used,
				    so that any append the verifier can imagine stays inside */
};

/* It is charged to the socket's option memory, of which older kernels allow 20 KiB (net.core.optmem_max). */
_Static_assert(sizeof(struct flow) <= 512, "a node may have a hundred thousand connections");

#endif
