/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Reads HTTP/1.x as it passes: methods, response headers, body framing. No maps and no counters here.
 *
 * The loops are written without branches but for one exit: the verifier follows every combination of
 * branches over all iterations, and all values come from map memory so that it cannot tell two
 * iterations apart for any other reason than the index.
 */
#ifndef SONDE_HTTP1_H
#define SONDE_HTTP1_H

#define METHOD(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)

#define CRLF_CRLF      0x0d0a0d0aU
#define NL_CONTENT     0x2a636f6e74656e74ULL /* "\ncontent", lower-cased by |0x20 as the scan does */
#define DASH_LENGTH    0x2d6c656e6774683aULL /* "-length:" */
#define CHUNKED_CR     0x6368756e6b65642dULL /* "chunked\r" */
#define T_STREAM       0x742d73747265616dULL /* "t-stream", of text/event-stream */
#define NL_DATA	       0x0a646174613aULL     /* "\ndata:" */
#define LAST_CHUNK     0x0d0a300d0a0d0aULL   /* "\r\n0\r\n\r\n" */
#define CRLF_LOADED    0x0a0dULL
#define CRLF_COLON     0x0d0a3aULL
#define LOW_32	       0xffffffffULL
#define LOW_40	       0xffffffffffULL
#define LOW_48	       0xffffffffffffULL
#define LOW_56	       0xffffffffffffffULL
#define LAST_CHUNK_LEN 5  /* "0\r\n\r\n": no segment of a chunked body as short as this carries data */
#define STATUS_BYTES   12 /* "HTTP/1.1 200" */

static __always_inline bool is_method(const u8 *head)
{
	u32 word = METHOD(head[0], head[1], head[2], head[3]);

	return word == METHOD('P', 'O', 'S', 'T') || word == METHOD('G', 'E', 'T', ' ') ||
	       word == METHOD('H', 'E', 'A', 'D') || word == METHOD('P', 'U', 'T', ' ') ||
	       word == METHOD('D', 'E', 'L', 'E') || word == METHOD('O', 'P', 'T', 'I') ||
	       word == METHOD('P', 'A', 'T', 'C');
}

static __always_inline bool is_http1_response(const u8 *head)
{
	return METHOD(head[0], head[1], head[2], head[3]) == METHOD('H', 'T', 'T', 'P') && head[4] == '/' &&
	       head[5] == '1';
}

static __always_inline u16 status_of(const u8 *head)
{
	return (head[9] - '0') * 100 + (head[10] - '0') * 10 + (head[11] - '0');
}

static __always_inline u64 choose(u64 condition, u64 yes, u64 no)
{
	return (yes & -condition) | (no & ~-condition);
}

/* 1 where value is 0, else 0 */
static __always_inline u64 is_zero(u64 value)
{
	return ~((value | -value) >> 63) & 1;
}

/* 1 where a < b; both far below 2^63 */
static __always_inline u64 is_less(u64 a, u64 b)
{
	return (a - b) >> 63;
}

/* "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" (RFC 9113, 3.4), as little-endian loads see it */
#define PREFACE_0 0x5448202a20495250ULL
#define PREFACE_1 0x0a0d302e322f5054ULL
#define PREFACE_2 0x0a0d0a0d4d530a0dULL

static __always_inline bool begins_preface(const u8 *head)
{
	return METHOD(head[0], head[1], head[2], head[3]) == METHOD('P', 'R', 'I', ' ');
}

static __always_inline bool is_preface(const u8 *head)
{
	const u64 *words = (const u64 *)head;

	return words[0] == PREFACE_0 && words[1] == PREFACE_1 && words[2] == PREFACE_2;
}

/* First bytes that no HTTP/1.x message has, whether at its start or in its middle: a TLS record, an HTTP/2 frame. */
static __always_inline bool is_foreign(const u8 *head)
{
	return head[0] == 0 || (head[0] >= 0x14 && head[0] <= 0x17 && head[1] == 3);
}

static __always_inline void start_header(struct flow *flow)
{
	flow->scan.window = 0;
	flow->scan.window_high = 0;
	flow->raw = 0;
	flow->remaining = 0;
	flow->digits = 0;
	flow->has_length = 0;
	flow->bad_length = 0;
	flow->windows = 0;
	flow->head_len = 0;
	flow->status = 0;
	flow->flags &= ~(CHUNKED | EVENTS);
}

/* Reads up to n (>= 1) bytes of a response header and stops behind its end. Returns the bytes read. */
static __always_inline u32 scan_header(struct flow *flow, const u8 *bytes, u64 n, bool *complete)
{
	u64 high = flow->scan.window_high, window = flow->scan.window, raw = flow->raw;
	u64 length = flow->remaining, digits = flow->digits, has_length = flow->has_length, bad = flow->bad_length;
	u64 chunked = 0, events = 0, end = 0, i;

#pragma nounroll
	for (i = 0; i < SONDE_WINDOW_BYTES; i++) {
		u64 c = bytes[i], digit = c - '0', is_digit = is_less(digit, 10) & ~(digit >> 63);
		u64 found, mask, space, some;

		raw = raw << 8 | c;
		high = high << 8 | window >> 56;
		window = window << 8 | c | 0x20;
		chunked |= is_zero(window ^ CHUNKED_CR);
		events |= is_zero(window ^ T_STREAM);
		found = is_zero((window ^ DASH_LENGTH) | (high ^ NL_CONTENT));
		mask = -(digits & is_digit);
		KEEP(mask);
		length = (length & ~mask) | ((length * 10 + digit) & mask);
		/* digits: 1 before the first one, 3 behind it, 0 elsewhere */
		space = is_zero(c ^ ' ');
		some = digits >> 1;
		bad |= digits & (is_digit ^ 1) & (space ^ 1) & ((some & is_zero(c ^ '\r')) ^ 1);
		digits = choose(digits & is_digit, 3, digits & -(space & (some ^ 1))) | found;
		has_length |= found << (has_length & 1); /* 3: more than one */
		end = is_zero((raw & 0xffffffff) ^ CRLF_CRLF);
		KEEP(end);
		if (end | (is_less(i + 1, n) ^ 1))
			break;
	}
	flow->scan.window_high = high;
	flow->scan.window = window;
	flow->raw = raw;
	flow->remaining = length;
	flow->digits = digits;
	flow->has_length = has_length;
	flow->bad_length = bad;
	flow->flags |= chunked * CHUNKED | events * EVENTS;
	*complete = end;
	return i + 1;
}

/* Looks for a line that begins with "data:" in n (>= 1) bytes of a body. Returns the bytes read. */
static __always_inline u32 scan_event(struct flow *flow, const u8 *bytes, u64 n, bool *found)
{
	u64 raw = flow->raw, hit = 0, i;

#pragma nounroll
	for (i = 0; i < SONDE_WINDOW_BYTES; i++) {
		raw = raw << 8 | bytes[i];
		hit = is_zero((raw & LOW_48) ^ NL_DATA);
		KEEP(hit);
		if (hit | (is_less(i + 1, n) ^ 1))
			break;
	}
	flow->raw = raw;
	*found = hit;
	return i + 1;
}

/* The header just ended: what delimits the body? (RFC 9112, 6.3) */
static __always_inline void frame_body(struct flow *flow)
{
	if (flow->flags & HEAD_METHOD || flow->status == 204 || flow->status == 304) {
		flow->flags &= ~CHUNKED;
		flow->remaining = 0;
	} else if (flow->flags & CHUNKED || !flow->has_length) {
		flow->remaining = LENGTH_UNKNOWN;
	}
}

/*
 * Does an event-stream segment begin with a comment line, behind its chunk-size line if there is one?
 * first: its first 8 bytes, the first of them most significant. Arithmetic only: a compiler makes
 * variable stack offsets of anything else.
 */
static __always_inline bool begins_with_comment(u64 first)
{
	u64 comment = is_zero(first >> 56 ^ ':');

#pragma unroll
	for (int shift = 32; shift >= 0; shift -= 8)
		comment |= is_zero((first >> shift & 0xffffff) ^ CRLF_COLON);
	return comment;
}

#endif
