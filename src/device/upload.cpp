#include "device/upload.h"

#include <cstring>

namespace tandem {

void upload(Device& device, std::span<const Upload> pieces, Deadline deadline) {
  if (!device.is_host()) return upload_to_cuda(device, pieces, deadline);
  for (const Upload& piece : pieces)
    if (piece.bytes > 0) std::memcpy(piece.to, piece.from, piece.bytes);
}

int gpu_number(const Device& device) { return device.is_host() ? -1 : cuda_number(device); }

}  // namespace tandem
