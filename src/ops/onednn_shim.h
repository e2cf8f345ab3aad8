// oneDNN's version 3 interface, also on version 2 (Debian 12). The only file that knows there are two.
#pragma once

#include <omp.h>

#include <dnnl.hpp>

namespace tandem::onednn {

inline const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

// oneDNN is built on OpenMP here, whose pool collapses beside a busy neighbour; with one thread it starts none. To be called by every
// thread that makes or runs a primitive.
inline void keep_single_threaded() {
  thread_local const bool done = (omp_set_num_threads(1), true);
  (void)done;
}

inline dnnl::matmul::primitive_desc matmul_desc(const dnnl::engine& engine, const dnnl::memory::desc& a, const dnnl::memory::desc& b,
                                                const dnnl::memory::desc& bias, const dnnl::memory::desc& c,
                                                const dnnl::primitive_attr& attributes) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, a, b, bias, c, attributes);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, bias, c), attributes, engine);
#endif
}

// Convolution for inference; `bias` may be empty. Throws dnnl::error where no implementation takes the layouts.
struct ConvWindow {
  dnnl::memory::dims strides, dilations, before, after;  // a dilation of 0 is dense
};
inline dnnl::convolution_forward::primitive_desc conv_desc(const dnnl::memory::desc& x, const dnnl::memory::desc& w,
                                                           const dnnl::memory::desc& bias, const dnnl::memory::desc& y,
                                                           const ConvWindow& at, const dnnl::primitive_attr& attributes) {
  constexpr auto kind = dnnl::prop_kind::forward_inference;
  constexpr auto algorithm = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::convolution_forward::primitive_desc(engine(), kind, algorithm, x, w, bias, y, at.strides, at.dilations, at.before, at.after,
                                                   attributes);
#else
  const dnnl::convolution_forward::desc desc(kind, algorithm, x, w, bias, y, at.strides, at.dilations, at.before, at.after);
  return dnnl::convolution_forward::primitive_desc(desc, attributes, engine());
#endif
}

inline void append_eltwise(dnnl::post_ops& ops, dnnl::algorithm algorithm, float alpha) {
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(algorithm, alpha, 0.0f);
#else
  ops.append_eltwise(1.0f, algorithm, alpha, 0.0f);
#endif
}

}  // namespace tandem::onednn
