/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What crosses from the kernel to user space, and nothing else.
 *
 * agent/kernel/layout.py reads `struct sonde_slot`, `struct sonde_counters` and the SONDE_ numbers
 * of this file, so a field is declared once. Only u64, s64 and u32 (arrays of them too) may appear in
 * those two structs, one field a line. Change anything here and SONDE_LAYOUT must go up by one:
 * it is part of the pin path, so programs and readers of different layouts never meet.
 */
#ifndef SONDE_WIRE_H
#define SONDE_WIRE_H

#define SONDE_LAYOUT 2

/* log-linear histogram: microseconds, 8 buckets per power of two, 0 us .. 2^32 us (71 min) */
#define SONDE_BUCKETS		 256
#define SONDE_BUCKETS_PER_OCTAVE 8

/* path classes of the first request line, values of the sonde_classes map */
#define SONDE_CLASS_INFERENCE	 0 /* counted; also every path no prefix matches */
#define SONDE_CLASS_EXCLUDED	 1 /* health checks and metrics scrapes: never in the statistics */
#define SONDE_CLASS_PREFIX_BYTES 24

/* {cgroup, local port} of a serving pod -> the slot that counts it */
struct sonde_key {
	u64 cgroup_id;
	u32 port;
	u32 pad;
};

struct sonde_owner {
	u64 generation; /* must equal the slot's, or the socket belongs to a pod that is gone */
	u32 slot;
	u32 pad;
};

/* one element array: programs look an unresolved socket up again only when the epoch moved */
struct sonde_control {
	u64 epoch;
	u64 shed; /* SONDE_SHED_ bits: what the programs leave out, because they were found to cost too much */
};

#define SONDE_SHED_HTTP2      1 /* HTTP/2 connections become opaque */
#define SONDE_SHED_CALLS      2 /* write and read calls of the application */
#define SONDE_SHED_TURNS      4 /* approximate times of opaque connections */
#define SONDE_SHED_HISTOGRAMS 8 /* buckets; sums and counts stay */

/* a response header is read in windows of this many bytes, at most so many of them (a tail call each) */
#define SONDE_WINDOW_BYTES 256
#define SONDE_WINDOWS	   32

/*
 * Everything known of one serving port of one pod. Times are CLOCK_MONOTONIC nanoseconds, sums are
 * nanoseconds. started = in_flight + completed + client_aborted + server_aborted + lost at every instant.
 */
struct sonde_slot {
	u64 generation;
	s64 in_flight;	    /* requests begun and not ended */
	s64 waiting;	    /* of those: no byte of data answered yet */
	u64 started;	    /* requests begun */
	u64 adopted;	    /* of those: met halfway, so that no time of theirs is in a histogram */
	u64 responded;	    /* final (not 1xx) response headers begun */
	u64 first_data;	    /* responses whose first data was seen = TTFT samples */
	u64 completed;	    /* responses that ended as their framing says */
	u64 client_aborted; /* ended by the client's FIN or RST */
	u64 server_aborted; /* ended by the server's FIN or RST before the response was whole */
	u64 lost;	    /* not followed to their end: the connection left step with HTTP/1.x */
	u64 excluded;	    /* requests of the excluded class */
	u64 status_4xx;	    /* final responses by class of status code */
	u64 status_5xx;
	u64 chunks;	  /* response segments that carried data; of HTTP/2 DATA frames */
	u64 exact_chunks; /* the same as the application wrote them, merged under loss or not: by its write calls */
	u64 gaps;	  /* inter-chunk gap samples */
	u64 connections_opened;
	u64 connections_adopted; /* found open when the programs met their pod */
	u64 connections_closed;
	u64 closed_by_client; /* whose FIN came first; these five are connections_closed by cause */
	u64 closed_by_server;
	u64 reset_by_client;
	u64 reset_by_server;
	u64 timed_out;		/* nothing came back for what was sent, in the end */
	u64 connections_http2;	/* HTTP/2 in clear text with prior knowledge */
	u64 goaways;		/* GOAWAY frames, of either side */
	u64 connections_opaque; /* not HTTP in clear text, or out of step with it */
	u64 turns;		/* of opaque connections: questions that an answer followed */
	u64 pipelined;		/* requests that arrived before the previous response ended */
	u64 syns;		/* SYN segments at the listener */
	u64 syn_acks;		/* SYN-ACK segments from the listener */
	u64 resets_in;
	u64 resets_out;
	u64 retransmits;   /* segments sent again */
	u64 rx_bytes;	   /* TCP payload in, duplicates not counted */
	u64 tx_bytes;	   /* TCP payload out, retransmissions not counted */
	u64 srtt_us;	   /* smoothed round trip of the connection that last ended a response; 0 unknown */
	u64 busy_since_ns; /* when in_flight last left 0 */
	u64 last_byte_ns;  /* last response byte of a counted request */
	u64 upload_ns_sum; /* first to last byte of a request */
	u64 header_ns_sum; /* request start to response header */
	u64 ttft_ns_sum;   /* request start to first data */
	u64 gap_ns_sum;
	u64 duration_ns_sum;   /* request start to response end, completed ones */
	u64 read_delay_ns_sum; /* bytes of a request arrived to the application having read them */
	u64 turn_ns_sum;       /* of opaque connections: question to answer */
	u64 turn_gap_ns_sum;   /* of opaque connections: between two segments of an answer */
	u32 upload_hist[SONDE_BUCKETS];
	u32 header_hist[SONDE_BUCKETS];
	u32 ttft_hist[SONDE_BUCKETS];
	u32 gap_hist[SONDE_BUCKETS];
	u32 duration_hist[SONDE_BUCKETS];
	u32 read_delay_hist[SONDE_BUCKETS];
	u32 turn_hist[SONDE_BUCKETS];
	u32 turn_gap_hist[SONDE_BUCKETS];
};

/* what the programs could not do, by cause; one element array */
struct sonde_counters {
	u64 storage_failed;    /* no room for a socket's state */
	u64 packet_short;      /* TCP header not reachable */
	u64 payload_unread;    /* bpf_skb_load_bytes refused */
	u64 header_too_long;   /* response header beyond what SONDE_WINDOWS windows hold */
	u64 two_lengths;       /* a response header with more than one content-length */
	u64 bad_length;	       /* a content-length that is no plain number: signed, a list, on a folded line */
	u64 both_framings;     /* a chunked response with a content-length too; followed as chunked */
	u64 bad_chunk;	       /* a chunk size that is no hexadecimal number, or of more than 8 digits */
	u64 too_many_chunks;   /* in one segment; the end of that response is told by its last bytes then */
	u64 not_http;	       /* first bytes of a request are no method of HTTP/1.x nor the preface of HTTP/2 */
	u64 met_halfway;       /* connections older than their pod's slot that speak something unknown */
	u64 http2_out_of_step; /* bytes of an HTTP/2 connection were missed */
	u64 http2_bad_frame;   /* not what HTTP/2 allows there */
	u64 http2_flooded;     /* more frames in one segment than are worth following */
	u64 http2_shed;	       /* connections not followed because that was given up */
	u64 streams_full;      /* no room for an HTTP/2 stream */
	u64 resolve_missed;    /* sockets on no known {cgroup, port} (looked up once per epoch) */
	u64 stale_generation;  /* packets of sockets whose pod is gone */
};

#endif
