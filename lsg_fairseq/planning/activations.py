"""The bytes that each step of the forward keeps for the backward, and the temporary bytes of the backward.

Kept bytes are those of the tensors that autograd saves, each storage counted once; tests compare them with what
torch.autograd.graph.saved_tensors_hooks sees on a CPU. CUDA differs in dropout masks of one byte per element, float32
statistics of layer norms, and attention kernels that support dropout.
"""

from __future__ import annotations

from typing import NamedTuple

from lsg_fairseq.modules import chunked_block_attention as chunked
from lsg_fairseq.modules.flex_block_attention import TILE
from lsg_fairseq.planning.setup import Setup, Stack

ENCODER, DECODER, CROSS, LOSS = "encoder", "decoder", "cross attention", "logits and loss"
# Arrays of scores that one chunk of chunked_block_attention's backward holds at a time, two of them for dropout.
CHUNK_ARRAYS = 5


class Step(NamedTuple):
    """A part of a layer.

    Args:
        kept: the bytes that its forward keeps for its backward.
        work: the most temporary bytes in its backward, less those of `kept` that are freed by then.
        parameters: the number of parameters whose gradients its backward computes.
    """

    group: str
    kept: int
    work: int
    parameters: int = 0


class Layer(NamedTuple):
    """The steps that activation checkpointing recomputes together.

    Args:
        inputs: the bytes that checkpointing keeps instead of those of the steps; 0: it does not apply here.
        extra_work: the temporary bytes that it adds to the backward.
    """

    steps: tuple[Step, ...]
    inputs: int = 0
    extra_work: int = 0


def layers_of(setup: Setup) -> list[Layer]:
    """All layers of the forward, in order."""
    model = setup.model
    enc, dec = model.encoder, model.decoder
    encoder_rows = _encoder_rows(setup)
    decoder_rows = setup.batch.rows * setup.batch.target
    table = model.vocabulary * enc.width
    layers = [Layer((_embedding(setup, ENCODER, encoder_rows, enc.width),))]
    for i in range(enc.layers):
        attention = _encoder_attention(setup)
        if i == 0:
            copies = _transposed_inputs(setup, encoder_rows * enc.width)
            attention = attention._replace(kept=attention.kept + copies)
        steps = (attention, _feed_forward(setup, ENCODER, encoder_rows, enc))
        layers.append(Layer(steps, encoder_rows * enc.width * setup.itemsize))
    layers.append(Layer((_final_norm(setup, ENCODER, encoder_rows, enc.width),)))
    layers.append(Layer((_embedding(setup, DECODER, decoder_rows, dec.width),)))
    for i in range(dec.layers):
        layers.append(_decoder_layer(setup, i, decoder_rows))
    layers.append(Layer((_final_norm(setup, DECODER, decoder_rows, dec.width), _loss(setup, decoder_rows, table))))
    return layers


def _encoder_rows(setup: Setup) -> int:
    return setup.batch.rows * (setup.model.config.num_global_tokens + setup.padded_source)


def _embedding(setup: Setup, group: str, rows: int, width: int) -> Step:
    """Ids of tokens and positions, the input of the norm, and dropout's mask (LSGEncoder.forward_embedding)."""
    kept = rows * 8 * (2 if setup.model.has_learned_positions else 1)
    if setup.model.has_embedding_norm:
        kept += _norm(setup, rows, width)
    kept += _dropout(setup, setup.model.dropout, rows * width) + (rows if group == ENCODER else 0)
    # The gradient of the table is dense, however few of its rows were used (embedding_dense_backward).
    work = setup.model.vocabulary * width * setup.itemsize + 2 * rows * width * setup.itemsize
    return Step(group, kept, work)


def _transposed_inputs(setup: Setup, numbers: int) -> int:
    """The first layer's input is a transposed view: with several examples, each projection keeps its own copy."""
    # With pre-norm (Pegasus, mBART), the first layer norm makes it contiguous.
    is_copied = setup.batch.rows > 1 and not setup.model.has_final_norm
    return 2 * numbers * setup.itemsize if is_copied else 0


def _encoder_attention(setup: Setup) -> Step:
    """fairseq's self-attention sublayer, with modules/lsg_attention.py."""
    stack, rows = setup.model.encoder, _encoder_rows(setup)
    numbers = rows * stack.width
    # The input of the projections, dropout's mask and the norm's input.
    kept = numbers * setup.itemsize + _dropout(setup, setup.model.dropout, numbers) + _norm(setup, rows, stack.width)
    kept += _clamps(setup, 1, numbers)
    if setup.attends_by_blocks:
        more, work = _block_attention(setup)
    else:
        length = rows // setup.batch.rows
        more, work = _plain_attention(setup, stack, (rows, rows), length * length)
    work += _weight_gradient(setup, stack.width * stack.width)
    return Step(ENCODER, kept + more, work, stack.layer_parameters - stack.ffn_parameters)


def _block_attention(setup: Setup) -> tuple[int, int]:
    """Bytes kept by projections, sparse selection, global tokens and backend; temporary bytes of the backward."""
    config, stack, rows = setup.model.config, setup.model.encoder, setup.batch.rows
    size, tokens = setup.attention_itemsize, setup.padded_source
    sparse = tokens // config.sparsity_factor if config.has_sparse_tokens else 0
    numbers, sparse_numbers = rows * tokens * stack.width, rows * sparse * stack.width
    # Queries, keys and values; the concatenated outputs of global tokens and blocks, which out_proj keeps.
    kept = _encoder_rows(setup) * stack.width * (3 * size + setup.itemsize)
    kept += _selection(setup, sparse) + _global_rows(setup)
    # Gradients: the incoming one twice (whole, and of the blocks), and those of queries, keys, values, sparse tokens.
    work = 5 * numbers * size + 2 * sparse_numbers * size
    if setup.backend == "chunked":
        most = chunked.MOST_SCORES.get("cuda" if setup.is_cuda else "cpu", chunked.MOST_SCORES_ELSEWHERE)
        keys = config.num_global_tokens + 3 * config.block_size + 2 * config.sparse_block_size
        scores = min(most, rows * stack.heads * tokens * keys)
        # For a chunk of blocks: arrays of scores; keys, values and their gradients.
        width = stack.width // stack.heads
        work += 4 * (CHUNK_ARRAYS * scores + 4 * scores * width // config.block_size)
    else:
        # The output and its log-sum-exp.
        kept += numbers * size + 4 * rows * stack.heads * tokens
    if setup.backend == "fused_cpu":
        # The kernel returns gradients for the whole window of every block: 1 + 3 + 3 (fused_cpu_attention.backward).
        work += 7 * numbers * size
    elif setup.backend == "flex":
        # Keys and values, concatenated and padded to whole tiles, and their gradients.
        row = sum(-(-n // TILE) * TILE for n in (tokens, sparse, config.num_global_tokens))
        kept += 2 * rows * row * stack.width * size
        work += 2 * rows * row * stack.width * size
    # What the sublayer's norm, dropout and out_proj kept is freed by then.
    freed = 3 * numbers * setup.itemsize
    return kept, max(work - freed, 0)


def _global_rows(setup: Setup) -> int:
    """Bytes that the attention of the global tokens keeps, beyond queries, keys and values, which are kept anyway."""
    stack, globals_rows = setup.model.encoder, setup.batch.rows * setup.model.config.num_global_tokens
    keys = _encoder_rows(setup) * stack.width
    if not setup.keeps_scores:
        return globals_rows * (stack.width * setup.attention_itemsize + 4 * stack.heads)
    scores = stack.heads * globals_rows * (keys // stack.width // setup.batch.rows)
    copies = keys * (2 if setup.itemsize == 2 else 1) + globals_rows * stack.width
    return 4 * (copies + 3 * scores)


def _selection(setup: Setup, sparse: int) -> int:
    """Bytes of sparse keys and values and of what their selection keeps (modules/sparse_tokens.py).

    What a user's own selection keeps is unknown, and counts as 0.
    """
    config, stack, rows = setup.model.config, setup.model.encoder, setup.batch.rows
    size, tokens = setup.attention_itemsize, setup.padded_source
    if not sparse or config.sparsity_factor == 1:
        return 0
    heads, kind = rows * stack.heads, config.sparsity_type
    if kind == "lsh" and config.sparsity_factor == config.sparse_block_size:
        kind = "bos_pooling"
    extra = {
        # The indices of tokens, int64.
        "norm": 8 * heads * sparse,
        "stride": 8 * stack.heads * sparse,
        "block_stride": 8 * stack.heads * sparse,
        # Weights, for keys and for values.
        "pooling": 2 * heads * tokens * size,
        # Copies of keys and values, and the softmax in float32 and in the kernel's dtype.
        "bos_pooling": 2 * rows * tokens * stack.width * size + heads * tokens * (4 if size == 4 else 4 + size),
    }
    if kind == "lsh":
        # Weights, the members of each bucket in each round, and the divisor.
        members = config.chunk_size * config.lsh_num_pre_rounds + config.chunk_size // config.sparsity_factor
        extra["lsh"] = 4 * heads * (2 * tokens + tokens * members + sparse)
    return 2 * rows * sparse * stack.width * size + extra.get(kind, 0)


def _plain_attention(setup: Setup, stack: Stack, rows: tuple[int, int], scores: int) -> tuple[int, int]:
    """Bytes kept by torch's scaled_dot_product_attention and out_proj; temporary bytes of the backward.

    Args:
        rows: the number of queries and of keys, over the whole batch.
        scores: the number of scores in one head of one example.
    """
    queries, keys = (n * stack.width for n in rows)
    if not setup.keeps_scores:
        size = setup.attention_itemsize
        narrowed = queries * setup.itemsize if size != setup.itemsize else 0
        kept = (2 * queries + 2 * keys) * size + 4 * stack.heads * rows[0] + narrowed
        return kept, (2 * queries + 2 * keys) * size
    # The kernel for dropout on CPUs (_scaled_dot_product_attention_math): scaled queries and keys, and values, in
    # float32; the probabilities, dropout's mask, and their product.
    all_scores = setup.batch.rows * stack.heads * scores
    kept = (queries + 2 * keys) * 4 + queries * setup.itemsize + 3 * 4 * all_scores
    return kept, 2 * 4 * all_scores + (2 * queries + 2 * keys) * 4


def _feed_forward(setup: Setup, group: str, rows: int, stack: Stack) -> Step:
    """fc1, activation, fc2 and the norm around them (fairseq's TransformerEncoderLayerBase.forward)."""
    numbers, inner, size = rows * stack.width, rows * stack.ffn, setup.itemsize
    is_relu = setup.model.activation == "relu"
    # relu keeps its output, gelu its input, which fairseq makes float32.
    active = inner * (size if is_relu else 4)
    noise = _dropout(setup, setup.model.activation_dropout, inner)
    kept = numbers * size + active + noise + _dropout(setup, setup.model.dropout, numbers)
    kept += _norm(setup, rows, stack.width) + _clamps(setup, 2, numbers) + _clamps(setup, 1, inner)
    # Without dropout in between, fc2's input is relu's output.
    second = 0 if is_relu and not setup.model.activation_dropout else inner * size
    kept += second
    work = inner * (2 * size if is_relu else 8) - second + 2 * numbers * size
    work += _weight_gradient(setup, stack.width * stack.ffn)
    return Step(group, kept, work, stack.ffn_parameters)


def _decoder_layer(setup: Setup, index: int, rows: int) -> Layer:
    stack, numbers = setup.model.decoder, rows * setup.model.decoder.width
    gives_weights = setup.reads_weights and index == stack.layers - 1
    attention = _target_attention(setup, rows, is_first=index == 0)
    steps = (attention, _source_attention(setup, rows, gives_weights), _feed_forward(setup, DECODER, rows, stack))
    scores = setup.batch.rows * stack.heads * setup.batch.target * setup.decoder_source
    # With checkpointing, the backward gets zeros as the gradient of the attention weights that the last layer returns.
    mask = setup.batch.target**2 * setup.itemsize if index == 0 else 0
    return Layer(steps, numbers * setup.itemsize + mask, scores * setup.itemsize if gives_weights else 0)


def _target_attention(setup: Setup, rows: int, is_first: bool) -> Step:
    """The decoder's self-attention sublayer, with modules/target_attention.py."""
    stack, length = setup.model.decoder, setup.batch.target
    numbers = rows * stack.width
    kept = numbers * setup.itemsize + _dropout(setup, setup.model.dropout, numbers) + _norm(setup, rows, stack.width)
    kept += _clamps(setup, 1, numbers) + (_transposed_inputs(setup, numbers) if is_first else 0)
    # All layers share the causal mask, unless each has to convert it to a wider dtype.
    is_widened = setup.attention_itemsize != setup.itemsize
    if not setup.keeps_scores and (is_first or is_widened):
        kept += length * length * setup.attention_itemsize
    more, work = _plain_attention(setup, stack, (rows, rows), length * length)
    return Step(DECODER, kept + more, work, _projections(stack))


def _source_attention(setup: Setup, rows: int, gives_weights: bool) -> Step:
    """The cross-attention sublayer, with modules/source_attention.py.

    fairseq requests attention weights from the last layer (extract_features' alignment_layer). A layer that returns
    them cannot use a fused kernel, and keeps its probabilities in float32 and in the model's dtype.
    """
    stack, size = setup.model.decoder, setup.itemsize
    numbers, source = rows * stack.width, setup.batch.rows * setup.decoder_source
    pairs = setup.batch.target * setup.decoder_source
    kept = numbers * size + _dropout(setup, setup.model.dropout, numbers) + _norm(setup, rows, stack.width)
    kept += _clamps(setup, 1, numbers)
    if gives_weights:
        scores = setup.batch.rows * stack.heads * pairs
        # In float32 without dropout, the probabilities themselves are multiplied by the values.
        multiplied = size * scores if size == 2 or setup.model.attention_dropout else 0
        kept += (2 * numbers + 2 * source * stack.width) * size
        kept += 4 * scores + multiplied + _dropout(setup, setup.model.attention_dropout, scores)
        work = 2 * 4 * scores
    else:
        more, work = _plain_attention(setup, stack, (rows, source), pairs)
        kept += more + (0 if setup.keeps_scores else source * setup.attention_itemsize)
    # Gradients of the encoder's output, one through keys and one through values.
    work += 2 * source * stack.width * size
    return Step(CROSS, kept, work, stack.layer_parameters - stack.ffn_parameters - _projections(stack))


def _projections(stack: Stack) -> int:
    """The number of parameters in the four projections of an attention sublayer and its norm."""
    return 4 * stack.width * (stack.width + 1) + 2 * stack.width


def _final_norm(setup: Setup, group: str, rows: int, width: int) -> Step:
    """The output of encoder or decoder, and the final norm of pre-norm models."""
    kept = rows * width * setup.itemsize
    if setup.model.has_final_norm:
        kept += _norm(setup, rows, width)
    return Step(group, kept, 0)


def _loss(setup: Setup, rows: int, table: int) -> Step:
    """log_softmax keeps its float32 output (label_smoothed_cross_entropy); the backward needs two more of that size."""
    logits = 4 * rows * setup.model.vocabulary
    return Step(LOSS, logits + rows, 2 * logits, table)


def _norm(setup: Setup, rows: int, width: int) -> int:
    """A layer norm's input, and two statistics per row, which are float32 on CUDA."""
    return rows * width * setup.itemsize + 2 * rows * (4 if setup.is_cuda else setup.itemsize)


def _dropout(setup: Setup, rate: float, numbers: int) -> int:
    return numbers * setup.noise_itemsize if rate > 0 else 0


def _clamps(setup: Setup, count: int, numbers: int) -> int:
    """The inputs of the clamps that keep Pegasus finite in float16 (models/half_precision.py)."""
    return count * numbers * setup.itemsize if setup.model.is_clamped and setup.dtype == "fp16" else 0


def _weight_gradient(setup: Setup, numbers: int) -> int:
    """A weight's gradient, before it is added to the accumulated one of the update's earlier batches."""
    return numbers * setup.itemsize if setup.accumulates else 0
