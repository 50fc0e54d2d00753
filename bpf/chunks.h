/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Follows a chunked body from chunk size to chunk size (RFC 9112, 7.1), so that its end is where the framing says and
 * not where the data looks like it. What a chunk holds is never read here.
 */
#ifndef SONDE_CHUNKS_H
#define SONDE_CHUNKS_H

#define CHUNK_DIGITS_MAX 8
#define WALK_STEPS	 96

enum walked {
	WALKED,	     /* the segment ends inside the body */
	MORE_STEPS,  /* there is more of it */
	AT_END,	     /* the body ends at scan_offset */
	OUT_OF_STEP, /* this is no chunked body */
};

static __always_inline void start_chunks(struct flow *flow)
{
	flow->chunk_phase = CHUNK_SIZE;
	flow->chunk_size = 0;
	flow->chunk_digits = 0;
}

/* 1 and the value where c is a hexadecimal digit, else 0 */
static __always_inline u64 is_hex(u64 c, u64 *value)
{
	u64 number = c - '0', letter = (c | 0x20) - 'a';
	u64 is_number = is_less(number, 10) & ~(number >> 63), is_letter = is_less(letter, 6) & ~(letter >> 63);

	*value = choose(is_number, number, letter + 10);
	return is_number | is_letter;
}

/* A size line of up to 6 digits without extension at the start of 8 bytes. Returns its length, 0 where it is none. */
static __always_inline u64 size_line(u64 text, u64 *size)
{
	u64 value = 0, digits = 0, open = 1, digit;

#pragma unroll
	for (int i = 0; i < 6; i++) {
		open &= is_hex(text >> 8 * i & 0xff, &digit);
		value = choose(open, value << 4 | (digit & 15), value);
		digits += open;
	}
	*size = value;
	if (!digits || (text >> 8 * (digits & 7) & 0xffff) != CRLF_LOADED)
		return 0;
	return digits + 2;
}

/* The line of a chunk's size is over. */
static __always_inline bool end_size_line(struct flow *flow)
{
	if (flow->chunk_phase == CHUNK_SIZE && !flow->chunk_digits)
		return false;
	flow->chunk_digits = 0;
	if (flow->chunk_size) {
		flow->remaining = (u64)flow->chunk_size + 2;
		flow->chunk_phase = CHUNK_DATA;
	} else {
		flow->chunk_phase = CHUNK_TRAILER;
	}
	flow->chunk_size = 0;
	return true;
}

/* One byte of framing. */
static __always_inline enum walked walk_byte(struct flow *flow, u64 c)
{
	u64 digit;

	if (flow->chunk_phase == CHUNK_TRAILER) {
		if (c == '\n' && !flow->chunk_digits)
			return AT_END;
		if (c == '\n')
			flow->chunk_digits = 0;
		else if (c != '\r')
			flow->chunk_digits = 1;
		return WALKED;
	}
	if (c == '\n')
		return end_size_line(flow) ? WALKED : OUT_OF_STEP;
	if (flow->chunk_phase == CHUNK_EXTENSION)
		return WALKED;
	if (is_hex(c, &digit)) {
		if (++flow->chunk_digits > CHUNK_DIGITS_MAX)
			return OUT_OF_STEP;
		flow->chunk_size = flow->chunk_size << 4 | (digit & 15);
		return WALKED;
	}
	if (!flow->chunk_digits || (c != ';' && c != ' ' && c != '\t' && c != '\r'))
		return OUT_OF_STEP;
	if (c != '\r')
		flow->chunk_phase = CHUNK_EXTENSION;
	return WALKED;
}

/* Takes data off the chunk; the chunk after it begins with its size. */
static __always_inline u32 take_data(struct flow *flow, u32 left)
{
	u64 n = flow->remaining < left ? flow->remaining : left;

	flow->remaining -= n;
	if (!flow->remaining)
		start_chunks(flow);
	return n;
}

/*
 * The rule: a segment that goes on in a chunk's data, or holds one whole chunk, or the last one. `first` is its first 8
 * body bytes, 0 where there are fewer. MORE_STEPS: nothing was done, walk_chunks() must.
 */
static __always_inline enum walked step_chunk(struct flow *flow, u64 first, u32 left)
{
	u64 size, line;

	if (flow->chunk_phase == CHUNK_DATA && left <= flow->remaining) {
		flow->scan_offset += take_data(flow, left);
		return WALKED;
	}
	if (flow->chunk_phase != CHUNK_SIZE || flow->chunk_digits)
		return MORE_STEPS;
	line = size_line(first, &size);
	if (!line || !size || line + size + 2 < left)
		return MORE_STEPS;
	flow->scan_offset += left;
	if (line + size + 2 == left)
		return WALKED;
	flow->chunk_phase = CHUNK_DATA;
	flow->remaining = line + size + 2 - left;
	return WALKED;
}

/* A whole chunk's size line at once; false where it takes walk_byte(). */
static __always_inline bool begin_chunk(struct __sk_buff *skb, const struct segment *segment, struct flow *flow, u32 at)
{
	u64 text = 0, size, line;

	if (flow->chunk_phase != CHUNK_SIZE || flow->chunk_digits || segment->len - at < 8)
		return false;
	if (!load(skb, segment->payload + at, &text, 8))
		return false;
	line = size_line(text, &size);
	if (!line || !size)
		return false;
	flow->remaining = size + 2;
	flow->chunk_phase = CHUNK_DATA;
	flow->scan_offset = at + line;
	return true;
}

/* Any other segment, from scan_offset on, as far as so many steps lead: a step is a whole chunk, or a byte of framing.
 */
static __always_inline enum walked walk_chunks(struct __sk_buff *skb, const struct segment *segment, struct flow *flow)
{
	int i;

#pragma nounroll
	for (i = 0; i < WALK_STEPS; i++) {
		u32 at = flow->scan_offset;
		enum walked result;
		u8 c = 0;

		if (at >= segment->len)
			return WALKED;
		if (flow->chunk_phase == CHUNK_DATA || begin_chunk(skb, segment, flow, at)) {
			at = flow->scan_offset;
			if (at < segment->len)
				flow->scan_offset = at + take_data(flow, segment->len - at);
			continue;
		}
		if (!load(skb, segment->payload + at, &c, 1))
			return OUT_OF_STEP;
		flow->scan_offset = at + 1;
		result = walk_byte(flow, c);
		if (result != WALKED)
			return result;
	}
	return MORE_STEPS;
}

/* A body met halfway: does this segment end with the last chunk? */
static __always_inline bool ends_with_last_chunk(struct __sk_buff *skb, const struct segment *segment,
						 struct flow *flow)
{
	u32 n = segment->len;
	u8 bytes[8] = {};

	flow->scan_offset = n;
	if (n < 8) { /* it may be cut: what came before is in raw */
#pragma unroll
		for (int i = 0; i < 7; i++)
			if (i < n && load(skb, segment->payload + i, bytes, 1))
				flow->raw = flow->raw << 8 | bytes[0];
	} else if (load(skb, segment->payload + n - 8, bytes, 8)) {
		flow->raw = __builtin_bswap64(*(u64 *)bytes);
	}
	return (flow->raw & LOW_56) == LAST_CHUNK;
}

#endif
