#include "comm/peer/window.h"

#include <cstring>
#include <mutex>

#include "core/check.h"
#include "device/cuda/runtime.h"

namespace tandem::peer {
namespace {

const Driver& driver() {
  std::string why;
  const Driver* found = find_driver(&why);
  if (!found) fail(ErrorCode::unsupported, "{}", why);
  return *found;
}

// One thread of a process at a time maps and unmaps: cuMemUnmap (driver of CUDA 13.0) was seen to corrupt the heap where threads let go of
// mappings of the same memory together.
std::mutex& mapping() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

Window::Window(Group& group, Links& links, Device& device, std::size_t bytes, Deadline deadline)
    : ordinal_(static_cast<cuda::CudaDevice&>(device).ordinal()), views_(std::make_shared<Views>(static_cast<std::size_t>(group.size()))) {
  const auto me = static_cast<std::size_t>(group.rank());
  Descriptor exported;
  all_do(group, deadline, [&] { make_own(group.rank(), bytes, exported); });
  // Ranks of this process map the handle itself.
  const auto handles = group.exchange(std::as_bytes(std::span(&view(me).handle, 1)), deadline);
  std::vector<Descriptor> descriptors = links.exchange(group, exported.get(), deadline);
  all_do(group, deadline, [&] {
    for (std::size_t r = 0; r < views_->of.size(); ++r) {
      if (r == me) continue;
      if (links.is_here(static_cast<int>(r))) {
        check(handles[r].size() == sizeof view(r).handle, "ranks exchange handles");
        std::memcpy(&view(r).handle, handles[r].data(), sizeof view(r).handle);
      } else {
        driver().check(driver().import_handle(&view(r).handle, reinterpret_cast<void*>(static_cast<std::uintptr_t>(descriptors[r].get())),
                                              CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
                       "taking over memory of another process's GPU");
        view(r).owned = true;
      }
      map(view(r));
    }
  });
}

Window::~Window() { cuda::drop_when_idle(ordinal_, std::move(views_)); }

void Window::make_own(int rank, std::size_t bytes, Descriptor& exported) {
  cuda::check(cudaFree(nullptr), "making the GPU's context");
  int can_export = 0;
  driver().check(driver().device_attribute(&can_export, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, ordinal_),
                 "asking whether memory can be shared");
  if (!can_export) fail(ErrorCode::unsupported, "the GPU's memory cannot be shared through descriptors");
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, ordinal_};
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  std::size_t unit = 0;
  driver().check(driver().granularity(&unit, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED), "asking for the unit of memory");
  const std::size_t whole = views_->bytes = (bytes + unit - 1) / unit * unit;
  View& own = view(static_cast<std::size_t>(rank));
  const CUresult status = driver().create(&own.handle, whole, &properties, 0);
  if (std::size_t free = 0, total = 0; status == CUDA_ERROR_OUT_OF_MEMORY && cudaMemGetInfo(&free, &total) == cudaSuccess)
    fail(ErrorCode::out_of_memory, "allocating memory for peers: {} bytes are needed, {} of {} are free", whole, free, total);
  driver().check(status, "allocating memory for peers");
  own.owned = true;
  map(own);
  int number = -1;
  driver().check(driver().export_handle(&number, own.handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0), "sharing memory of the GPU");
  exported = Descriptor(number);
}

void Window::map(View& view) {
  const std::lock_guard lock(mapping());
  CUdeviceptr address = 0;
  driver().check(driver().reserve(&address, bytes(), 0, 0, 0), "reserving addresses");
  view.reserved = true;
  view.data = reinterpret_cast<char*>(address);
  driver().check(driver().map(address, bytes(), 0, view.handle, 0), "mapping memory of a GPU");
  view.mapped = true;
  CUmemAccessDesc access{};
  access.location = {CU_MEM_LOCATION_TYPE_DEVICE, ordinal_};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  driver().check(driver().set_access(address, bytes(), &access, 1), "reaching the memory of another GPU");
}

Window::Views::~Views() {
  const Driver* const calls = find_driver(nullptr);
  if (!calls) return;  // then nothing was made
  const std::lock_guard lock(mapping());
  for (const View& view : of) {
    const auto address = reinterpret_cast<CUdeviceptr>(view.data);
    if (view.mapped) calls->unmap(address, bytes);
    if (view.reserved) calls->unreserve(address, bytes);
    if (view.owned) calls->release(view.handle);
  }
}

}  // namespace tandem::peer
