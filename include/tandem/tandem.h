// All of Tandem's C++ interface. Public.
#pragma once

#include "tandem/build.h"
#include "tandem/engine.h"
#include "tandem/error.h"
#include "tandem/team.h"
#include "tandem/types.h"
