/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Idioms that every other file uses. */
#ifndef SONDE_BASE_H
#define SONDE_BASE_H

/*
 * Everything is inlined into a handful of programs. What debuggers would be told of each copy takes a fifth of the time
 * that compiling takes, and no debugger comes here.
 */
#undef __always_inline
#define __always_inline inline __attribute__((__always_inline__, __nodebug__))

#define ADD(counter, n) __sync_fetch_and_add(&(counter), (n))

/* The compiler would prove a later check unnecessary and drop it; the verifier still needs to see it. */
#define KEEP(value) asm volatile("" : "+r"(value))

#endif
