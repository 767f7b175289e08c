"""The stages of a patch, one a file, one public function a file; `ipbp.pipeline` is their order."""
