// Pieces of the page of `tandem inspect --html`. All text that comes from the engine goes through escaped().
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace tandem::cli {

extern const char* const kPageStyle;  // light and dark; colours of mesh axes are --a0 … --a7

std::string escaped(const std::string& text);

// A table whose cells are HTML already; `heads` are text. Scrolls by itself where it is too wide.
std::string html_table(const std::vector<std::string>& heads, const std::vector<std::string>& rows);
std::string html_row(const std::vector<std::string>& cells, const std::string& attributes = {});
// A part that can be folded away.
std::string html_fold(const std::string& summary, const std::string& inside, bool open);

// The parts of the page that look at the mesh. Keeps a reference to the report.
class MeshLook {
 public:
  explicit MeshLook(const nlohmann::json& report) : report_(report) {}

  // CSS colours of an axis, to write on and to draw with; grey where it is none of the mesh.
  std::string colour(const std::string& axis) const { return variable('a', axis); }
  std::string strong(const std::string& axis) const { return variable('s', axis); }
  std::string tag(const std::string& axis) const;
  // Element type and extents, each split dimension in the colour of its axes; partial sums hatched. Of a value, port or weight.
  std::string value(const nlohmann::json& described) const;
  std::string legend() const;
  // One card per rank, in rows of the last axis.
  std::string ranks() const;

 private:
  std::string variable(char kind, const std::string& axis) const;
  const nlohmann::json& report_;
};

// Bytes alive per step as a chart, for each set of ranks with the same; below it what is alive at the peak.
std::string memory_chart(const nlohmann::json& report, const MeshLook& look);
// The steps, folded by layer.
std::string layer_folds(const nlohmann::json& report, const MeshLook& look);

}  // namespace tandem::cli
