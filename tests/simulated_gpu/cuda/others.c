/* What is written by hand of the other libraries, each in a section that `libraries.py` switches on for its library.
 *
 * Everything else in them returns 0. Products hand their addresses to the runtime, which may refuse the call.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
extern int sim_library_call(const char *name, void *stream, const void **arguments, int count) __attribute__((weak));
extern int sim_context_state(int device, unsigned *flags, int *active) __attribute__((weak));
extern int refused(const char *call) __attribute__((weak));
static __thread void *stream;
static int called(const char *name, void *on, const void **arguments, int count) {
    return sim_library_call ? sim_library_call(name, on, arguments, count) : 0;
}

#ifdef IN_libcublas
int cublasCreate_v2(void **handle) { *handle = malloc(64); return refused ? refused("cublasCreate") : 0; }
int cublasGetVersion_v2(void *handle, int *version) { *version = 130000; return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasGetPointerMode_v2(void *handle, int *mode) { *mode = 0; return 0; }
int cublasSetStream_v2(void *handle, void *wanted) { stream = wanted; return 0; }
#endif

#ifdef IN_libcublasLt
int cublasLtCreate(void **handle) { *handle = malloc(64); return 0; }
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *of, void *a, void *b, void *c, void *d, void *wish, int asked,
                                   void *result, int *found) {
    memset(result, 0, 64);
    *found = 1;
    return 0;
}
/* A descriptor keeps the one address that isn't an argument of the product: the bias's. */
enum { BIAS_POINTER = 8 };
int cublasLtMatmulDescCreate(void **of, int compute, int scale) { *of = calloc(1, 64); return 0; }
int cublasLtMatmulDescDestroy(void *of) { free(of); return 0; }
int cublasLtMatmulDescSetAttribute(void *of, int attribute, const void *value, size_t bytes) {
    if (attribute == BIAS_POINTER && bytes == sizeof(void *)) memcpy(of, value, bytes);
    return 0;
}
int cublasLtMatmul(void *handle, void *of, void *alpha, void *a, void *la, void *b, void *lb, void *beta, void *c, void *lc,
                   void *d, void *ld, void *how, void *work, size_t bytes, void *on) {
    const void *arguments[] = {a, b, c, d, work, *(void **)of};
    return called("cublasLtMatmul", on, arguments, 6);
}
#endif

#ifdef IN_libcudnn
size_t cudnnGetVersion(void) { return 91400; }
int cudnnCreate(void **handle) { *handle = malloc(64); return 0; }
#endif

#ifdef IN_libcurand
int curandCreateGenerator(void **generator, int type) { *generator = malloc(8); return 0; }
#endif

#ifdef IN_libcuda
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    return sim_context_state ? sim_context_state(device, flags, active) : 0;
}
int cuCtxGetCurrent(void **context) { *context = (void *)8; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "simulated"; return 0; }
#endif
