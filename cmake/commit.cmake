# Writes a source file with the commit that the sources are of, where it changed; run by each build.
execute_process(COMMAND git describe --always --abbrev=12 --dirty=+ --exclude=* WORKING_DIRECTORY ${SOURCE}
  OUTPUT_VARIABLE COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE FAILED)
if(FAILED)
  set(COMMIT "")
endif()
set(TEXT "#include \"api/build/built_with.h\"\n\nnamespace tandem {\nstd::string source_commit() { return \"${COMMIT}\"; }\n}  // namespace tandem\n")
set(BEFORE "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} BEFORE)
endif()
if(NOT BEFORE STREQUAL TEXT)
  file(WRITE ${OUTPUT} "${TEXT}")
endif()
