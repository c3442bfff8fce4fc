/** One task: turn the counts of a test run into the lines a person reads and the exit code a machine reads. */

/**
 * @param summary what scripts/summary-reporter.mjs counted
 * @param runnerExitCode of vitest
 * @param inCI there nothing may be skipped
 * @returns lines to print, the last of them `N passed, N failed` (and `, N skipped`), and the exit code
 */
export function verdict({ passed, failed, skipped, broken }, runnerExitCode, inCI) {
  const lines = [
    ...broken.map((problem) => `failed outside a test: ${problem}`),
    ...skipped.map((reason) => `skipped: ${reason}`),
  ];
  // A run that broke without a failing test must not read as if all had passed.
  const failures = failed + broken.length || (runnerExitCode === 0 ? 0 : 1);
  const ran = passed + failures > 0;
  if (!ran) lines.push('no test ran');
  const mayNotSkip = inCI && skipped.length > 0;
  if (mayNotSkip) lines.push('nothing may be skipped in CI');
  const skips = skipped.length > 0 ? `, ${skipped.length} skipped` : '';
  lines.push(`${passed} passed, ${failures} failed${skips}`);
  return { lines, exitCode: failures === 0 && ran && !mayNotSkip ? 0 : 1 };
}
