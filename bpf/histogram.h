/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Log-linear histograms; agent/kernel/layout.py mirrors the bucket function and a test compares both. */
#ifndef SONDE_HISTOGRAM_H
#define SONDE_HISTOGRAM_H

static __always_inline u64 bucket_of(u64 ns)
{
	u64 us = ns / 1000, shifted, exponent = 0;

	if (us > 0xffffffffULL)
		us = 0xffffffffULL;
	if (us < SONDE_BUCKETS_PER_OCTAVE)
		return us;
	shifted = us;
	if (shifted >= 1 << 16) {
		exponent += 16;
		shifted >>= 16;
	}
	if (shifted >= 1 << 8) {
		exponent += 8;
		shifted >>= 8;
	}
	if (shifted >= 1 << 4) {
		exponent += 4;
		shifted >>= 4;
	}
	if (shifted >= 1 << 2) {
		exponent += 2;
		shifted >>= 2;
	}
	if (shifted >= 1 << 1)
		exponent += 1;
	return (exponent - 2) * 8 + ((us >> (exponent - 3)) & 7);
}

static __always_inline void observe(u32 *histogram, u64 *sum, u64 ns)
{
	u64 bucket;

	ADD(*sum, ns);
	if (is_shed(SONDE_SHED_HISTOGRAMS))
		return;
	bucket = bucket_of(ns);
	KEEP(bucket);
	ADD(histogram[bucket & (SONDE_BUCKETS - 1)], 1);
}

#endif
