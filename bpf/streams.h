/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The life of an HTTP/2 stream in the counts: a request like any other. Its path and status are compressed and stay
 * unknown, so that health checks count too and 1xx responses are taken for the final one.
 */
#ifndef SONDE_STREAMS_H
#define SONDE_STREAMS_H

#define END_STREAM 1 /* flag of DATA and HEADERS */

static __always_inline struct stream_key key_of(const struct flow *flow, u32 id)
{
	struct stream_key key = {.connection = flow->http2.connection, .id = id};

	return key;
}

static __always_inline void open_stream(struct flow *flow, struct sonde_slot *slot, u32 id, u64 now)
{
	struct stream_key key = key_of(flow, id);
	struct stream stream = {.start_ns = now, .last_in_ns = now};

	flow->http2.last_stream = id;
	if (streams.update(&key, &stream)) {
		COUNT_DROP(streams_full);
		return;
	}
	if (slot->in_flight <= 0)
		slot->busy_since_ns = now;
	ADD(flow->http2.active, 1);
	ADD(flow->http2.waiting, 1);
	ADD(slot->started, 1);
	ADD(slot->waiting, 1);
	ADD(slot->in_flight, 1);
}

/* Leaves the gauges; the outcome is the caller's to count. */
static __always_inline void close_stream(struct flow *flow, struct sonde_slot *slot, struct stream_key *key,
					 const struct stream *stream)
{
	if (!(stream->seen & STREAM_DATA)) {
		ADD(flow->http2.waiting, -1);
		ADD(slot->waiting, -1);
	}
	ADD(flow->http2.active, -1);
	ADD(slot->in_flight, -1);
	streams.delete(key);
}

static __always_inline void abort_stream(struct flow *flow, struct sonde_slot *slot, u32 id, u64 *outcome)
{
	struct stream_key key = key_of(flow, id);
	struct stream *stream = streams.lookup(&key);

	if (!stream)
		return;
	close_stream(flow, slot, &key, stream);
	ADD(*outcome, 1);
}

/* Bytes of the client for a stream that is open. */
static __always_inline void feed_stream(struct flow *flow, u32 id, u64 now)
{
	struct stream_key key = key_of(flow, id);
	struct stream *stream = streams.lookup(&key);

	if (stream)
		stream->last_in_ns = now;
}

static __always_inline void stream_data(struct flow *flow, struct sonde_slot *slot, struct stream *stream, u64 now)
{
	ADD(slot->chunks, 1);
	ADD(slot->exact_chunks, 1);
	if (stream->seen & STREAM_DATA) {
		ADD(slot->gaps, 1);
		observe(slot->gap_hist, &slot->gap_ns_sum, now - stream->last_out_ns);
	} else {
		stream->seen |= STREAM_DATA;
		ADD(flow->http2.waiting, -1);
		ADD(slot->waiting, -1);
		ADD(slot->first_data, 1);
		observe(slot->ttft_hist, &slot->ttft_ns_sum, now - stream->start_ns);
	}
	stream->last_out_ns = now;
}

/* HEADERS or DATA from the server. */
static __always_inline void answer_stream(struct flow *flow, struct sonde_slot *slot, u32 id, bool headers, u32 len,
					  bool end, u64 now)
{
	struct stream_key key = key_of(flow, id);
	struct stream *stream = streams.lookup(&key);

	if (!stream)
		return;
	slot->last_byte_ns = now;
	if (headers && !(stream->seen & STREAM_RESPONDED)) {
		stream->seen |= STREAM_RESPONDED;
		ADD(slot->responded, 1);
		observe(slot->header_hist, &slot->header_ns_sum, now - stream->start_ns);
		observe(slot->upload_hist, &slot->upload_ns_sum, stream->last_in_ns - stream->start_ns);
	}
	if (!headers && len)
		stream_data(flow, slot, stream, now);
	if (!end)
		return;
	ADD(slot->completed, 1);
	observe(slot->duration_hist, &slot->duration_ns_sum, now - stream->start_ns);
	close_stream(flow, slot, &key, stream);
}

/* All streams of a connection at once; their entries are left to age. */
static __always_inline void end_streams(struct flow *flow, struct sonde_slot *slot, u64 *outcome)
{
	s64 active = flow->http2.active, waiting = flow->http2.waiting;

	flow->http2.active = 0;
	flow->http2.waiting = 0;
	/* an id that none of its streams has: whoever still speaks of them is not heard */
	flow->http2.connection = 0;
	if (active <= 0)
		return;
	ADD(slot->in_flight, -active);
	ADD(slot->waiting, -waiting);
	ADD(*outcome, active);
}

#endif
