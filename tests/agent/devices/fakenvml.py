"""Builds a libnvidia-ml.so.1 that answers for two GPUs, one with a MIG slice, and tells of Xids a file names.

Compiled C behind the real nvidia-ml-py, so that only the library itself is not the real one.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define NO_DATA 3 /* NVML_ERROR_NOT_SUPPORTED */
#define DONE 10   /* NVML_ERROR_TIMEOUT */
typedef struct { int index; const char *uuid; } gpu;
static gpu gpus[] = {{0, "GPU-zero"}, {1, "GPU-one"}}, slice = {7, "MIG-one"};
int nvmlInitWithFlags(unsigned flags) { return getenv("FAKE_NVML_BROKEN") ? 9 : 0; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "Driver Not Loaded"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned at, gpu **found) { if (at > 1) return 2; *found = &gpus[at]; return 0; }
int nvmlDeviceGetUUID(gpu *one, char *text, unsigned size) { snprintf(text, size, "%s", one->uuid); return 0; }
int nvmlDeviceGetMinorNumber(gpu *one, unsigned *number) { *number = one->index; return 0; }
int nvmlDeviceGetMigMode(gpu *one, unsigned *now, unsigned *next) { *now = *next = one->index == 1; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(gpu *one, unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(gpu *one, unsigned at, gpu **found)
{ if (at) return 6; *found = &slice; return 0; }
int nvmlDeviceGetGpuInstanceId(gpu *one, unsigned *id) { *id = 3; return 0; }
int nvmlDeviceGetMemoryInfo(gpu *one, unsigned long long *memory)
{ memory[0] = 1000; memory[1] = 400; memory[2] = 600; return 0; }
int nvmlDeviceGetUtilizationRates(gpu *one, unsigned *rates)
{ if (one == &slice) return NO_DATA; rates[0] = 40; rates[1] = 10; return 0; }
int nvmlDeviceGetPowerUsage(gpu *one, unsigned *mw) { if (one == &slice) return NO_DATA; *mw = 250500; return 0; }
int nvmlDeviceGetTemperature(gpu *one, int sensor, unsigned *degrees) { *degrees = 61; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(gpu *one, unsigned long long *bits) { *bits = 0x1 | 0x40; return 0; }
int nvmlEventSetCreate(void **set) { *set = malloc(1); return 0; }
int nvmlEventSetFree(void *set) { free(set); return 0; }
int nvmlDeviceRegisterEvents(gpu *one, unsigned long long types, void *set) { return types == 8 ? 0 : 2; }
typedef struct { gpu *device; unsigned long long type, data; unsigned gi, ci; } event;
int nvmlEventSetWait_v2(void *set, event *out, unsigned timeout)
{
	const char *path = getenv("FAKE_NVML_XID");
	FILE *file = path ? fopen(path, "r") : NULL;
	int index, xid;
	if (!file) return DONE;
	int read = fscanf(file, "%d %d", &index, &xid);
	fclose(file);
	remove(path);
	if (read != 2) return DONE;
	memset(out, 0, sizeof *out);
	out->device = &gpus[index]; out->type = 8; out->data = xid;
	return 0;
}
"""


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(SOURCE)
    named = compiler()
    assert named is not None
    subprocess.run([named, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    return library
