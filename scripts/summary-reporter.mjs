/** One task: count the tests of a vitest run and write the counts to the file that scripts/test.mjs names. */
import { writeFileSync } from 'node:fs';

export default class SummaryReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const summary = { passed: 0, failed: 0, skipped: [], broken: unhandledErrors.map((error) => firstLine(error)) };
    for (const module of modules) {
      count(module, summary);
      // A file that does not load has no tests to count; a hook that throws may leave its tests uncounted.
      if (module.errors().length > 0)
        summary.broken.push(`${module.relativeModuleId}: ${firstLine(module.errors()[0])}`);
    }
    const file = process.env.CUTOVER_TEST_SUMMARY;
    if (file) writeFileSync(file, JSON.stringify(summary));
  }
}

function count(module, summary) {
  for (const test of module.children.allTests()) {
    const { state, note } = test.result();
    if (state === 'passed') summary.passed += 1;
    else if (state === 'failed') summary.failed += 1;
    // `pending` is a test that never began, because a hook before it failed or the run was interrupted.
    else if (state === 'skipped') summary.skipped.push(note ? `${test.fullName}: ${note}` : test.fullName);
    else summary.broken.push(`${test.fullName}: never ran`);
  }
  for (const suite of module.children.allSuites()) {
    for (const error of suite.errors()) summary.broken.push(`${suite.fullName}: ${firstLine(error)}`);
  }
}

function firstLine(error) {
  return String(error?.message ?? error).split('\n')[0];
}
