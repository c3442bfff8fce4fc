/** One task: the fixed set of faults where each node has a worker in it. */
import { testFixedFaults } from './fixed.js';

testFixedFaults('together');
