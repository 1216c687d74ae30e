/* What a program that embeds the library looks like to the compiler: C11 and C++17, every warning an error.
   usage: consumer ADDRESS...       connects two engines over each address */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "exchange.h"

int main(int count, char **arguments) {
    int index;
    check(reconnect_version() != 0, "the ABI's version is %#x", (unsigned)reconnect_version());
    check(strlen(reconnect_version_string()) >= 5, "the version is %s", reconnect_version_string());
    check(strcmp(reconnect_status_name(RECONNECT_OK), "OK") == 0, "status 0 is OK");
    check(strcmp(reconnect_status_name(RECONNECT_INVALID_HANDLE), "INVALID_HANDLE") == 0, "status names");
    check(strcmp(reconnect_status_name(12345), "UNKNOWN") == 0, "unknown status names");
    check(sizeof(void *) != 8 || sizeof(reconnect_event_t) == 128, "an event has 128 bytes");
    for (index = 1; index < count; index++) {
        exchange_run(arguments[index], 0);
        exchange_run(arguments[index], 1);
    }
    return finish();
}
