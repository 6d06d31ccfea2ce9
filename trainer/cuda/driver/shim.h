#pragma once

// shim_load opens a driver's library, starts it, and sends all calls there. It returns 0, -1
// if there is no such library, or what the library's cuInit returned; why has room for size
// bytes.
int shim_load(const char *library, char *why, int size);
