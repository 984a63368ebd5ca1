"""Offline tools: checkpoints to bundles, and the proof that nothing was lost on the way.

    checkpoint  ->  starter, csm, mimi  ->  weights  ->  bundle_parts  ->  bundle_writer
    safetensors     (or synthetic)          neutral      gguf_writer       OUT.part -> OUT
                    names, layouts          names        heads, tables
                                                         codec_export, mimi_decoder, mimi_encoder

``convert`` is the way from left to right; ``verify`` goes it again with transformers in place of everything here and
compares, stage by stage. What a name begins with says where it belongs: csm_, mimi_, bundle_, verify_.
"""
