// An operator's mistake: something outside Berth that must be put right before it can go on.

/**
 * Ends a command with exit code 1 and its message alone, without a stack. The message says what is wrong and what to do,
 * may have several lines, and never holds a secret's value.
 */
export class OperatorError extends Error {
  override readonly name = 'OperatorError'
}
