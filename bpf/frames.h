/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Walks the frames of an HTTP/2 connection by their 9-byte heads (RFC 9113, 4.1), in both directions, wherever
 * segments cut them. Header blocks stay compressed. A connection whose bytes are missed or make no sense is opaque from
 * then on: to guess where the next frame begins would count what is not there.
 *
 * The state is in map memory throughout, so that the verifier takes all iterations of the loop for one.
 */
#ifndef SONDE_FRAMES_H
#define SONDE_FRAMES_H

#define FRAME_STEPS 64

enum frame_type { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUED };

#define LAST_KNOWN_TYPE 0x10 /* PRIORITY_UPDATE; RFC 9113 lets unknown ones pass, but so would bytes out of step */

struct frame {
	u32 len;
	u32 stream;
	u8 type;
	u8 flags;
};

static __always_inline void read_frame(const u8 *head, struct frame *frame)
{
	frame->len = (u32)head[0] << 16 | (u32)head[1] << 8 | head[2];
	frame->type = head[3];
	frame->flags = head[4];
	frame->stream = (u32)(head[5] & 0x7f) << 24 | (u32)head[6] << 16 | (u32)head[7] << 8 | head[8];
}

/* Could HTTP/2 send this? */
static __always_inline bool is_frame(const struct frame *frame, bool first)
{
	if (first && frame->type != SETTINGS)
		return false;
	switch (frame->type) {
	case DATA:
	case HEADERS:
	case CONTINUED:
		return frame->stream;
	case PRIORITY:
		return frame->stream && frame->len == 5;
	case RST_STREAM:
		return frame->stream && frame->len == 4;
	case SETTINGS:
		return !frame->stream && frame->len % 6 == 0;
	case PUSH_PROMISE:
		return frame->stream && frame->len >= 4;
	case PING:
		return !frame->stream && frame->len == 8;
	case GOAWAY:
		return !frame->stream && frame->len >= 8;
	case WINDOW_UPDATE:
		return frame->len == 4;
	}
	return frame->type <= LAST_KNOWN_TYPE;
}

static __always_inline void start_http2(struct flow *flow, u64 connection)
{
	__builtin_memset(&flow->http2, 0, sizeof(flow->http2));
	flow->http2.connection = connection;
}

/*
 * A frame on the third ACK. Whether the connection comes about is not known yet, so streams are only noted: their ids
 * are 1, 3, 5 and so on, as every client numbers its first ones.
 */
static __always_inline void frame_early(struct flow *flow, const struct frame *frame)
{
	struct http2 *http2 = &flow->http2;

	if (frame->type == RST_STREAM || frame->type == GOAWAY)
		http2->early = EARLY_LOST;
	if (http2->early == EARLY_LOST || frame->type != HEADERS || frame->stream <= http2->last_stream)
		return;
	http2->last_stream = frame->stream;
	if (frame->stream == 2 * http2->early + 1 && http2->early < EARLY_STREAMS)
		http2->early++;
	else
		http2->early = EARLY_LOST;
}

/* The connection has come about: the streams noted begin, at the time they came. */
static __always_inline void begin_early(struct flow *flow, struct sonde_slot *slot, u64 now)
{
	u32 i, last = flow->http2.last_stream;

#pragma nounroll
	for (i = 0; i < EARLY_STREAMS; i++) {
		u32 id = 2 * i + 1;

		KEEP(id); /* else the compiler tests for the last one alone, and the verifier sees no end of the loop */
		if (id > last)
			return;
		open_stream(flow, slot, id, now);
	}
}

static __always_inline void frame_in(struct flow *flow, struct sonde_slot *slot, const struct frame *frame, u64 now)
{
	if (frame->type == HEADERS && frame->stream & 1 && frame->stream > flow->http2.last_stream)
		open_stream(flow, slot, frame->stream, now);
	else if (frame->type == HEADERS || frame->type == DATA)
		feed_stream(flow, frame->stream, now);
	else if (frame->type == RST_STREAM)
		abort_stream(flow, slot, frame->stream, &slot->client_aborted);
	else if (frame->type == GOAWAY)
		ADD(slot->goaways, 1);
}

/* An answer to a stream that the client never opened: what opened it was lost, overtaken and so missed. */
static __always_inline bool answers_unheard(const struct flow *flow, const struct frame *frame)
{
	return frame->type == HEADERS && frame->stream & 1 && frame->stream > flow->http2.last_stream;
}

static __always_inline void frame_out(struct flow *flow, struct sonde_slot *slot, const struct frame *frame, u64 now)
{
	if (frame->type == HEADERS || frame->type == DATA)
		answer_stream(flow, slot, frame->stream, frame->type == HEADERS, frame->len, frame->flags & END_STREAM,
			      now);
	else if (frame->type == RST_STREAM)
		abort_stream(flow, slot, frame->stream, &slot->server_aborted);
	else if (frame->type == GOAWAY)
		ADD(slot->goaways, 1);
}

/* The head of the next frame, whole or as far as this segment has it: 1 whole, 0 not yet, -1 unreadable. */
static __always_inline int next_head(struct __sk_buff *skb, const struct segment *segment, struct frames *frames,
				     u32 at, u8 *head)
{
	u64 have = frames->have;

	if (!have && segment->len - at >= FRAME_BYTES) {
		frames->at = at + FRAME_BYTES;
		return load(skb, segment->payload + at, head, FRAME_BYTES) ? 1 : -1;
	}
	KEEP(have);
	if (have > FRAME_BYTES - 1 || !load(skb, segment->payload + at, frames->head + have, 1))
		return -1;
	frames->at = at + 1;
	frames->have = have + 1;
	if (have + 1 < FRAME_BYTES)
		return 0;
	frames->have = 0;
	__builtin_memcpy(head, frames->head, FRAME_BYTES);
	return 1;
}

static __always_inline void skip_payload(struct frames *frames, u32 at, u32 left)
{
	u32 n = frames->skip < left ? frames->skip : left;

	frames->skip -= n;
	frames->at = at + n;
}

/* Returns as walk_chunks() does; AT_END does not occur. `early`: it is a listener that sees them. */
static __always_inline enum walked walk_frames(struct __sk_buff *skb, const struct segment *segment, struct flow *flow,
					       struct sonde_slot *slot, bool in, bool early)
{
	struct frames *frames = in ? &flow->http2.in : &flow->http2.out;
	u64 now = in ? flow->last_in_ns : flow->last_out_ns;
	int i;

#pragma nounroll
	for (i = 0; i < FRAME_STEPS; i++) {
		struct frame frame = {};
		u8 head[12] = {};
		u32 at = frames->at;
		int whole;

		if (at >= segment->len)
			return WALKED;
		if (frames->skip) {
			skip_payload(frames, at, segment->len - at);
			continue;
		}
		whole = next_head(skb, segment, frames, at, head);
		if (whole < 0)
			return OUT_OF_STEP;
		if (!whole)
			continue;
		read_frame(head, &frame);
		if (!is_frame(&frame, !frames->begun))
			return OUT_OF_STEP;
		frames->begun = 1;
		frames->skip = frame.len;
		at = frames->at;
		if (at < segment->len)
			skip_payload(frames, at, segment->len - at);
		if (!in && answers_unheard(flow, &frame))
			return OUT_OF_STEP;
		if (early)
			frame_early(flow, &frame);
		else if (in)
			frame_in(flow, slot, &frame, now);
		else
			frame_out(flow, slot, &frame, now);
	}
	return MORE_STEPS;
}

/* Bytes that went by unseen: no harm inside a frame's payload. */
static __always_inline bool miss_bytes(struct frames *frames, u32 n)
{
	if (n > frames->skip)
		return false;
	frames->skip -= n;
	return true;
}

#endif
