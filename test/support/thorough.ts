/**
 * One task: say whether tests run at their full length: `SHARDED_TESTS=all npx vitest run test/moves test/proxy test/demo test/faults`. `npm test`
 * runs each kind of them, but not every size and not every way: on two cores it would take half an hour. docs/evidence/sharded-moves.md has a full run.
 */
export const THOROUGH = process.env.SHARDED_TESTS === 'all';
