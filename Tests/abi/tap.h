/* Counted checks that print the Test Anything Protocol. One program, one thread prints. */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int tap_count;
static int tap_failed;

/* Counts one check; its name is a format. Returns whether it held. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static inline int check(int held, const char *format, ...) {
    va_list arguments;
    tap_count++;
    if (!held) {
        tap_failed++;
    }
    printf("%sok %d - ", held ? "" : "not ", tap_count);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    return held;
}

/* The plan, and the program's exit code. */
static inline int finish(void) {
    printf("1..%d\n", tap_count);
    fflush(stdout);
    return tap_failed == 0 ? 0 : 1;
}

#endif
