/* Sizes of a kernel's parameters, from the code that the program carries for the GPU.
 *
 * A launch hands over addresses of parameters, without their number or sizes. The program's fat binaries hold an ELF file
 * for each architecture, packed with zstd; its section `.nv.info.KERNEL` names each parameter's ordinal and size. Layout
 * of fat binaries and of these attributes: NVIDIA doesn't document them; `test_kernels.py` says if this reading is right.
 */
#include "simulated.h"
#include <dlfcn.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint32_t magic, version; const char *data; } Wrapper;
typedef struct { uint32_t magic; uint16_t version, header_bytes; uint64_t bytes; } FatHeader;
typedef struct { uint16_t kind, version; uint32_t header_bytes; uint64_t bytes; uint32_t packed_bytes, name, minor, arch, name_bytes, reserved; uint64_t flags, zero, whole_bytes; } FatEntry;
enum { FAT_MAGIC = 0xBA55ED50, IS_ELF = 2, IS_ZSTD = 0x8000, KPARAM_INFO = 0x17, SIZED_VALUE = 4 };
typedef size_t (*Unpack)(void *target, size_t room, const void *source, size_t bytes);

static Unpack unpack(void) {
    static Unpack found;
    if (!found) {
        void *library = dlopen("libzstd.so.1", RTLD_NOW);
        found = library ? (Unpack)dlsym(library, "ZSTD_decompress") : NULL;
    }
    return found;
}

/* The attributes of one `.nv.info` section: format, attribute, 16 bits of value or size, and so many bytes. */
static void read_attributes(const unsigned char *at, size_t bytes, Parameters *into) {
    const unsigned char *end = at + bytes;
    while (at + 4 <= end) {
        unsigned format = at[0], attribute = at[1], size = at[2] | at[3] << 8;
        at += 4;
        if (format != SIZED_VALUE) continue;
        if (attribute == KPARAM_INFO && size >= 12 && at + 12 <= end) {
            unsigned ordinal = at[4] | at[5] << 8;
            uint32_t word;
            memcpy(&word, at + 8, 4);
            if (ordinal < 64) {
                into->sizes[ordinal] = word >> 18;
                if ((int)ordinal + 1 > into->count) into->count = ordinal + 1;
            }
        }
        at += size;
    }
}

static int found_in_elf(const char *elf, const char *kernel, Parameters *into) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(elf + header->e_shoff);
    const char *names = elf + sections[header->e_shstrndx].sh_offset;
    for (int i = 0; i < header->e_shnum; i++) {
        const char *name = names + sections[i].sh_name;
        if (strncmp(name, ".nv.info.", 9) || strcmp(name + 9, kernel)) continue;
        read_attributes((const unsigned char *)elf + sections[i].sh_offset, sections[i].sh_size, into);
        return into->known = 1;
    }
    return 0;
}

static int found_in_entry(const FatEntry *entry, const char *kernel, Parameters *into) {
    const char *data = (const char *)entry + entry->header_bytes;
    if (entry->kind != IS_ELF) return 0;
    if (!entry->packed_bytes) return found_in_elf(data, kernel, into);
    if (!(entry->flags & IS_ZSTD) || !unpack()) return 0;
    char *whole = malloc(entry->whole_bytes);
    size_t bytes = unpack()(whole, entry->whole_bytes, data, entry->packed_bytes);
    int found = bytes == entry->whole_bytes && found_in_elf(whole, kernel, into);
    free(whole);
    return found;
}

/* Unknown (`known` is 0) where no ELF file of the fat binary has the kernel. The caller keeps what it gets. */
const Parameters *parameters_of(const void *fat_binary, const char *kernel) {
    Parameters *found = calloc(1, sizeof *found);
    const FatHeader *header = (const FatHeader *)((const Wrapper *)fat_binary)->data;
    if (!header || header->magic != FAT_MAGIC) return found;
    const char *at = (const char *)header + header->header_bytes, *end = at + header->bytes;
    while (at < end && !found->known) {
        const FatEntry *entry = (const FatEntry *)at;
        found_in_entry(entry, kernel, found);
        at += entry->header_bytes + entry->bytes;
    }
    return found;
}
