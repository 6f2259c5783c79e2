// An empty module, so that Python's import finds and loads the library; the ops register themselves on loading.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern "C" PyMODINIT_FUNC PyInit__native(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", nullptr, 0, nullptr, nullptr, nullptr, nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
