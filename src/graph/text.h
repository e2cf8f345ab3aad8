// The text form of modules: prints and parses back to the same module. docs/graph_text.md has the grammar.
// Data of large sources is not part of the text; everything else is, bit for bit.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "graph/graph.h"

namespace tandem {

std::string print(const Module& module);
// One program or region. A program alone parses once a line "module" stands before it and its weights are declared.
std::string print(const Graph& graph);
std::string print(const Recipe& recipe);
// With its sharding: f32[B,384]{_,(384):tp}
std::string print(const Type& type, const Sharding& sharding = {});

// Checks grammar, names and literals; verify() checks the rest. Result types may be left out: they are inferred then.
// Throws Error(invalid_model) with line and column. The module refers to `ops`, which must outlive it.
std::unique_ptr<Module> parse_module(std::string_view text, const OpSet& ops);
// Throw Error(invalid_model).
RecipePtr parse_recipe(std::string_view text);
Sharding parse_sharding(std::string_view text);

// The module again, sharing the data of its sources.
std::unique_ptr<Module> clone(const Module& module);

// Structural equality: names, types, shardings, attributes (bitwise), order. Sources count only where both have data.
// Says in `why` what differs first.
bool same(const Module& a, const Module& b, std::string* why = nullptr);

}  // namespace tandem
