/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Two idioms that every other file uses. */
#ifndef SONDE_BASE_H
#define SONDE_BASE_H

#define ADD(counter, n) __sync_fetch_and_add(&(counter), (n))

/* The compiler would prove a later check unnecessary and drop it; the verifier still needs to see it. */
#define KEEP(value) asm volatile("" : "+r"(value))

#endif
