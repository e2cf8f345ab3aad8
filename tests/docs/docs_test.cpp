// The documents that can go stale: the op reference is what ops.def gives, and what the pages show as graph text parses.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "docs/op_reference.h"
#include "graph/text.h"
#include "ops/ops.h"

namespace tandem::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = TANDEM_SOURCE;

std::string read(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(OpReference, IsWhatTheListGives) {
  const fs::path page = kSource / "docs/ops.md";
  const std::string fresh = op_reference(read(kSource / "src/ops/ops.def"));
  if (std::getenv("TANDEM_RENEW_DOCS")) std::ofstream(page) << fresh;
  EXPECT_TRUE(read(page) == fresh) << "docs/ops.md is stale; renew it: TANDEM_RENEW_DOCS=1 build/cpu/bin/docs_test";
}

TEST(OpReference, EverythingIsExplained) {
  const std::string page = op_reference(read(kSource / "src/ops/ops.def"));
  for (const OpDef* op : all_ops().all()) {
    EXPECT_NE(page.find("### " + std::string(op->name) + "\n"), std::string::npos) << op->name << " is missing";
    EXPECT_TRUE(op->doc.ends_with('.')) << op->name << " needs a sentence";
    EXPECT_EQ(op->operands.size(), op->max_operands < 0 ? 1u : static_cast<std::size_t>(op->max_operands))
        << op->name << " does not name its operands";
    EXPECT_FALSE(op->results.empty()) << op->name;
    std::set<std::string_view> names;
    for (const Operand& operand : op->operands)
      EXPECT_TRUE(names.insert(operand.name).second) << op->name << " names '" << operand.name << "' twice";
    for (const Field& field : op->fields) EXPECT_TRUE(names.insert(field.name).second) << op->name << " names '" << field.name << "' twice";
    for (const Field& field : op->fields) EXPECT_FALSE(field.doc.empty()) << op->name << " does not explain '" << field.name << "'";
  }
}

// The blocks of a page between ```graph and ```.
std::vector<std::string> graph_blocks(const std::string& page) {
  std::vector<std::string> blocks;
  const std::string open = "```graph\n";
  for (std::size_t at = page.find(open); at != std::string::npos; at = page.find(open, at)) {
    const std::size_t begin = at + open.size(), end = page.find("```", begin);
    blocks.push_back(page.substr(begin, end - begin));
    at = end;
  }
  return blocks;
}

TEST(GraphTextPage, ItsExamplesParseAndVerify) {
  const std::vector<std::string> blocks = graph_blocks(read(kSource / "docs/graph_text.md"));
  ASSERT_FALSE(blocks.empty());
  for (const std::string& block : blocks) {
    const auto module = parse_module(block, all_ops());
    EXPECT_NO_THROW(verify(*module)) << block;
    std::string why;
    EXPECT_TRUE(same(*module, *parse_module(print(*module), all_ops()), &why)) << why;
  }
}

TEST(GraphTextPage, ItsFirstExampleIsWrittenAsItIsPrinted) {
  const std::string block = graph_blocks(read(kSource / "docs/graph_text.md")).at(0);
  EXPECT_EQ(print(*parse_module(block, all_ops())), block);
}

TEST(Links, LeadSomewhere) {
  std::vector<fs::path> pages = {kSource / "README.md", kSource / "CONTRIBUTING.md", kSource / "CHANGELOG.md"};
  for (const auto& entry : fs::directory_iterator(kSource / "docs")) pages.push_back(entry.path());
  const std::regex link(R"(\]\(([A-Za-z0-9_./-]+\.[a-z]+|LICENSE)(#[^)]*)?\))");
  std::size_t seen = 0;
  for (const fs::path& page : pages) {
    const std::string text = read(page);
    for (std::sregex_iterator at(text.begin(), text.end(), link), end; at != end; ++at, ++seen)
      EXPECT_TRUE(fs::exists(page.parent_path() / (*at)[1].str())) << page << " links " << (*at)[1];
  }
  EXPECT_GT(seen, 10u);
}

}  // namespace
}  // namespace tandem::testing
