#ifndef RECONNECT_H
#define RECONNECT_H
#include <stdint.h>
uint32_t reconnect_version(void);
#endif
