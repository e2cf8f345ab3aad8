// Choosing the kernel of a node: one that was asked for; else by time where a Measure is given and several can run; else by rule. Where a
// Measure is given it also decides between the algorithms of the kernel's library.
#pragma once

#include "build/step_timer.h"

namespace tandem {

class KernelChooser {
 public:
  // All references must outlive the chooser. Throws Error(invalid_argument) where a kernel that does not exist is asked for.
  KernelChooser(const Graph& graph, std::size_t profile, const Mesh& mesh, const PlanOptions& options);
  // Throws Error(unsupported) naming the node and every reason where no kernel can run it.
  Choice choose(const Node& node);

 private:
  void time(const Node& node, const std::vector<const KernelDef*>& kernels, Choice& choice);

  const Mesh& mesh_;
  const PlanOptions& options_;
  SymbolValues symbols_;  // opt values of the profile, and coordinates of rank 0
  StepTimer timer_;
};

}  // namespace tandem
