/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The quick way to read a response header: when it lies whole in the first window of its first segment, as
 * those of inference engines do. Newlines are found eight bytes at a time and only the first bytes of each
 * line are looked at: a fifth of the time of scan_header(), which reads byte by byte and takes every other
 * case. Both must come to the same result; tests/kernel cuts the same headers at every byte to compare.
 */
#ifndef SONDE_SKIM_H
#define SONDE_SKIM_H

#define EVERY_BYTE(b)	    (0x0101010101010101ULL * (b))
#define GATHER_BITS	    0x0102040810204080ULL /* moves bit 0 of byte i to bit 56 + i */
#define LINES_PER_BLOCK	    13			  /* "a:b\r\n" is the shortest header line */
#define INDEX_MASK	    31
#define END_MAX		    224 /* so that all reads from a line's start on stay inside the words */
#define BLOCK_BYTES	    64
#define CRLF_CRLF_LOADED    0x0a0d0a0dULL
#define CONTENT_DASH	    0x2d746e65746e6f63ULL /* "content-", as a little-endian load sees it */
#define LENGTH_COLON	    0x003a6874676e656cULL /* "length:" */
#define TYPE_COLON	    0x0000003a65707974ULL /* "type:" */
#define TRANSFER	    0x726566736e617274ULL /* "transfer" */
#define DASH_ENCODIN	    0x6e69646f636e652dULL /* "-encodin" */
#define TEXT_EVE	    0x6576652f74786574ULL /* "text/eve" */
#define LENGTH_VALUE_OFFSET 15			  /* behind "content-length:" */
#define TYPE_VALUE_OFFSET   13			  /* behind "content-type:" */
#define CODING_VALUE_OFFSET 18			  /* behind "transfer-encoding:" */
#define CHUNKED_VALUE	    0x2d64656b6e756863ULL /* "chunked\r", |0x20 */

static __always_inline u64 newlines_in(u64 word)
{
	u64 other = word ^ EVERY_BYTE('\n');
	/* exact for every byte value, unlike the usual (x - 0x01..) & ~x */
	u64 hits = ~((other & EVERY_BYTE(0x7f)) + EVERY_BYTE(0x7f) | other | EVERY_BYTE(0x7f));

	return (hits >> 7) * GATHER_BITS >> 56;
}

/* Bit i: byte i of the 64 bytes is a newline. */
static __always_inline u64 newlines_of(const u64 *words)
{
	u64 bits = 0;

#pragma unroll
	for (int i = 0; i < 8; i++)
		bits |= newlines_in(words[i]) << 8 * i;
	return bits;
}

/* The index of the lowest bit set in bits (not 0): BPF has no instruction for it. */
static __always_inline u64 lowest(u64 bits)
{
	u64 below = (bits & -bits) - 1;

	below -= below >> 1 & EVERY_BYTE(0x55);
	below = (below & EVERY_BYTE(0x33)) + (below >> 2 & EVERY_BYTE(0x33));
	return ((below + (below >> 4)) & EVERY_BYTE(0x0f)) * EVERY_BYTE(1) >> 56;
}

/* 8 bytes from any offset below 256, by aligned reads: not every machine takes others kindly. */
static __always_inline u64 word_at(const u64 *words, u64 at)
{
	u64 index = at >> 3, shift = (at & 7) * 8;

	KEEP(index);
	index &= INDEX_MASK;
	return words[index] >> shift | words[index + 1] << (63 - shift) << 1;
}

/* Notes which of a block's lines matter. Returns false where it holds more lines than a header can. */
static __always_inline bool note_lines(struct skim *skim, const u64 *words, u64 base, u64 end)
{
	u64 k;

#pragma nounroll
	for (k = 0; k < LINES_PER_BLOCK; k++) {
		u64 bits = skim->left, at, inside, content, first, second, found;

		if (!bits)
			return true;
		at = base + lowest(bits) + 1;
		inside = -is_less(at, end);
		skim->left = bits & (bits - 1) & inside;
		at &= inside;
		first = word_at(words, at) | EVERY_BYTE(0x20);
		second = word_at(words, at + 8) | EVERY_BYTE(0x20);
		content = first ^ CONTENT_DASH;
		found = is_zero(content | ((second ^ LENGTH_COLON) & LOW_56));
		skim->twice |= -found & skim->length_at;
		skim->length_at = choose(found, at, skim->length_at);
		skim->type_at = choose(is_zero(content | ((second ^ TYPE_COLON) & LOW_40)), at, skim->type_at);
		skim->encoding_at =
			choose(is_zero((first ^ TRANSFER) | (second ^ DASH_ENCODIN)), at, skim->encoding_at);
	}
	return !skim->left;
}

/* A decimal number of up to 15 digits behind optional spaces. False where it is anything else: scan_header() decides.
 */
static __always_inline bool number_at(const u64 *words, u64 at, u64 *number)
{
	u64 low = word_at(words, at), high = word_at(words, at + 8), value = 0, digits = 0, open = 1, ended = 0, i;

	/* not unrolled: sixteen bytes taken apart at once would not fit the stack */
#pragma nounroll
	for (i = 0; i < 16; i++) {
		u64 c = low & 0xff, digit = c - '0';
		u64 is_digit = is_less(digit, 10) & ~(digit >> 63);

		ended |= open & digits & is_zero(c ^ '\r');
		open &= is_digit | (is_zero(c ^ ' ') & (digits ^ 1));
		digits |= open & is_digit;
		value = choose(open & is_digit, value * 10 + digit, value);
		low = low >> 8 | high << 56;
		high >>= 8;
	}
	*number = value;
	return ended;
}

/* Does a value begin with these 8 bytes, a space before them or not? */
static __always_inline bool begins_with(const u64 *words, u64 at, u64 value)
{
	return (word_at(words, at) | EVERY_BYTE(0x20)) == value || (word_at(words, at + 1) | EVERY_BYTE(0x20)) == value;
}

/*
 * Reads a header that is whole in the n bytes of flow->skim.words. Returns the offset behind it with status,
 * framing and remaining set in flow, or 0 with nothing of use changed: then scan_header() must do it.
 */
static __always_inline u32 skim_header(struct flow *flow, u64 n)
{
	struct skim *skim = &flow->skim;
	const u64 *words = skim->words;
	u64 end = 0;

	/* not HTTP/1.x, or an interim response that another header follows */
	if (!is_http1_response((const u8 *)words) || ((const u8 *)words)[9] == '1')
		return 0;
#pragma unroll
	for (int i = 0; i < BLOCKS; i++)
		skim->newlines[i] = newlines_of(words + 8 * i);
	/* the first newline that is followed by another two bytes on: the empty line */
#pragma unroll
	for (int i = 0; i < BLOCKS; i++) {
		u64 bits = skim->newlines[i], next = i + 1 < BLOCKS ? skim->newlines[i + 1] : 0;
		u64 pairs = bits & (bits >> 2 | next << 62);

		end = choose(is_zero(end) & (is_zero(pairs) ^ 1), BLOCK_BYTES * i + lowest(pairs) + 1, end);
	}
	if (!end || end > END_MAX || end + 2 > n)
		return 0;
	skim->length_at = 0;
	skim->twice = 0;
	skim->type_at = 0;
	skim->encoding_at = 0;
#pragma unroll
	for (int i = 0; i < BLOCKS; i++) {
		skim->left = skim->newlines[i];
		if (!note_lines(skim, words, BLOCK_BYTES * i, end))
			return 0;
	}
	if ((word_at(words, end - 2) & LOW_32) != CRLF_CRLF_LOADED)
		return 0;
	if (skim->twice)
		return 0;
	if (skim->encoding_at && !begins_with(words, skim->encoding_at + CODING_VALUE_OFFSET, CHUNKED_VALUE))
		return 0;
	flow->status = status_of((const u8 *)words);
	flow->has_length = skim->length_at != 0;
	flow->remaining = 0;
	if (skim->length_at && !number_at(words, skim->length_at + LENGTH_VALUE_OFFSET, &flow->remaining))
		return 0;
	if (skim->encoding_at)
		flow->flags |= CHUNKED;
	if (skim->type_at && begins_with(words, skim->type_at + TYPE_VALUE_OFFSET, TEXT_EVE))
		flow->flags |= EVENTS;
	flow->raw = '\n';
	return end + 2;
}

#endif
