/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What the kernel remembers of one connection, in its socket's own storage, and of one HTTP/2 stream. */
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
	ADOPTED = 1 << 15,    /* older than the programs: nobody will tell that it closed, its packets must */
	HALFWAY = 1 << 16,    /* the request was under way when the connection was met: its times are not known */
	OWN_FIN = 1 << 17,    /* the server closed its side first */
	OWN_RST = 1 << 18,
	ANSWERED_FIN = 1 << 19, /* data was sent after the client's FIN: that was a half-close */
	HTTP2 = 1 << 20,
	HTTP2_EARLY = 1 << 21, /* the server sent SETTINGS, the client's preface is still to come */
};

/* where in a chunked body the next byte is */
enum chunk_phase {
	CHUNK_SIZE,	 /* in the digits */
	CHUNK_EXTENSION, /* between the digits and the end of their line */
	CHUNK_DATA,	 /* in the data or the line end behind them */
	CHUNK_TRAILER,	 /* behind the last chunk, until an empty line */
	CHUNK_SOMEWHERE, /* met halfway, or too much at once to follow: the end shows by its bytes */
};

/* whose turn it is on an opaque connection */
enum turn { QUIET, ASKING, ANSWERING };

/* what a server has sent since its handshake: nothing, session tickets, data */
enum greeted { SILENT, GREETS, SPEAKS };

#define LENGTH_UNKNOWN (~0ULL)
#define HEAD_BYTES     SONDE_CLASS_PREFIX_BYTES
#define FRAME_BYTES    9 /* of an HTTP/2 frame's head */

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

/* What scan_header() remembers from one window to the next. Behind a failed skim_header() it starts anew. */
struct scan {
	u64 window_high; /* the 16 bytes last scanned, lower-cased; oldest first */
	u64 window;
};

/* One direction of an HTTP/2 connection: where in the frames the next byte is. */
struct frames {
	u32 skip; /* payload bytes of the current frame to come */
	u32 at;	  /* offset in the payload of the segment being walked */
	u8 have;  /* bytes of a frame's head that came in earlier segments */
	u8 begun; /* the first frame was seen, which must be SETTINGS */
	u8 head[14];
};

#define EARLY_STREAMS 16 /* more in a client's first segment are not followed */
#define EARLY_LOST    0xffffffff

struct http2 {
	u64 connection;	 /* first half of its streams' keys */
	s64 active;	 /* streams in flight */
	s64 waiting;	 /* of these: no data answered yet */
	u32 last_stream; /* highest id that the client used */
	u32 early;	 /* on a listener: streams opened by what came with the third ACK, or EARLY_LOST */
	struct frames in;
	struct frames out;
};

struct flow {
	u64 generation; /* of the slot when the socket was matched to it */
	u64 epoch;	/* of the last look-up that found no owner */
	u64 start_ns;	/* first byte of the request */
	u64 last_in_ns;
	u64 last_out_ns;
	u64 next_start_ns; /* first byte of the first pipelined request */
	u64 arrived_ns;	   /* first byte that the application has not read; 0: none, or nobody tells of its reads */
	u64 remaining;	   /* bytes to come: of the body by content-length, of a chunk, or asked in an opaque turn */
	u64 raw;	   /* the 8 bytes last looked at, as they are */
	u32 slot;	   /* index + 1; 0: no owner */
	u32 in_end;	   /* sequence number after the last request byte taken in order */
	u32 out_end;	   /* sequence number after the last response byte sent */
	u32 scan_offset;   /* payload offset of the next byte to look at */
	u32 body_offset;   /* where the body begins in this segment */
	u32 flags;
	u32 sent;	/* response bytes that left the socket, retransmissions not counted; wraps */
	u32 written;	/* response bytes that the application wrote, on the same scale */
	u32 chunk_size; /* as far as its digits were read */
	u16 early_port; /* on a listener: whose request came with the third ACK */
	u16 status;	/* 0: not yet known */
	u8 state;
	u8 windows;    /* read of this header */
	u8 digits;     /* the scan is inside content-length's digits */
	u8 has_length; /* 0, 1, or 3 for more than one */
	u8 bad_length; /* not 0: it is no plain number */
	u8 head_len;
	u8 pending; /* pipelined requests not begun */
	u8 chunk_phase;
	u8 chunk_digits; /* in CHUNK_TRAILER: the line holds something */
	u8 turn;
	u8 flights;   /* of a TLS handshake, that the server sent */
	u8 greeted;   /* enum greeted */
	u8 body_due;  /* the body's part of this segment is still to be followed */
	u8 data_left; /* data left the socket inside the application's write call */
	union {
		struct skim skim;
		struct scan scan;
		struct http2 http2;
	};
	u8 head[2 * HEAD_BYTES]; /* first bytes of the request, then of the response; twice the size used,
				    so that any append the verifier can imagine stays inside */
};

/* It is charged to the socket's option memory, of which older kernels allow 20 KiB (net.core.optmem_max). */
_Static_assert(sizeof(struct flow) <= 512, "a node may have a hundred thousand connections");

struct stream_key {
	u64 connection;
	u32 id;
	u32 pad;
};

struct stream {
	u64 start_ns;
	u64 last_in_ns;
	u64 last_out_ns;
	u64 seen; /* STREAM_ bits */
};

#define STREAM_RESPONDED 1
#define STREAM_DATA	 2

#endif
