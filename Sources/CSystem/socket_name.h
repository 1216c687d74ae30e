/* Between the system's addresses and ours. */
#pragma once
#include "CSystem.h"
#include <sys/socket.h>

socklen_t cs_socket_name(struct sockaddr_storage *out, const cs_address *address, int v4);
void cs_read_socket_name(cs_address *out, const struct sockaddr_storage *in);
int cs_is_v4(const cs_address *address);
