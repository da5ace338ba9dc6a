"""The eight solved examples of PAL for GSM8K, word for word (github.com/reasoning-machines/pal, Apache-2.0).

A result on other examples, or on these in another order, is another measure.
"""

from typing import Final

SHOTS: Final = (
    (
        "Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
        "    money_initial = 23\n"
        "    bagels = 5\n"
        "    bagel_cost = 3\n"
        "    money_spent = bagels * bagel_cost\n"
        "    money_left = money_initial - money_spent\n"
        "    result = money_left\n"
        "    return result",
    ),
    (
        "Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 "
        "more. How many golf balls did he have at the end of wednesday?",
        "    golf_balls_initial = 58\n"
        "    golf_balls_lost_tuesday = 23\n"
        "    golf_balls_lost_wednesday = 2\n"
        "    golf_balls_left = golf_balls_initial - golf_balls_lost_tuesday - golf_balls_lost_wednesday\n"
        "    result = golf_balls_left\n"
        "    return result",
    ),
    (
        "There were nine computers in the server room. Five more computers were installed each "
        "day, from monday to thursday. How many computers are now in the server room?",
        "    computers_initial = 9\n"
        "    computers_per_day = 5\n"
        "    num_days = 4  # 4 days between monday and thursday\n"
        "    computers_added = computers_per_day * num_days\n"
        "    computers_total = computers_initial + computers_added\n"
        "    result = computers_total\n"
        "    return result",
    ),
    (
        "Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many "
        "toys does he have now?",
        "    toys_initial = 5\n"
        "    mom_toys = 2\n"
        "    dad_toys = 2\n"
        "    total_received = mom_toys + dad_toys\n"
        "    total_toys = toys_initial + total_received\n"
        "    result = total_toys\n"
        "    return result",
    ),
    (
        "Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How "
        "many lollipops did Jason give to Denny?",
        "    jason_lollipops_initial = 20\n"
        "    jason_lollipops_after = 12\n"
        "    denny_lollipops = jason_lollipops_initial - jason_lollipops_after\n"
        "    result = denny_lollipops\n"
        "    return result",
    ),
    (
        "Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they "
        "have left in total?",
        "    leah_chocolates = 32\n"
        "    sister_chocolates = 42\n"
        "    total_chocolates = leah_chocolates + sister_chocolates\n"
        "    chocolates_eaten = 35\n"
        "    chocolates_left = total_chocolates - chocolates_eaten\n"
        "    result = chocolates_left\n"
        "    return result",
    ),
    (
        "If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
        "    cars_initial = 3\n"
        "    cars_arrived = 2\n"
        "    total_cars = cars_initial + cars_arrived\n"
        "    result = total_cars\n"
        "    return result",
    ),
    (
        "There are 15 trees in the grove. Grove workers will plant trees in the grove today. "
        "After they are done, there will be 21 trees. How many trees did the grove workers plant "
        "today?",
        "    trees_initial = 15\n"
        "    trees_after = 21\n"
        "    trees_added = trees_after - trees_initial\n"
        "    result = trees_added\n"
        "    return result",
    ),
)
"""Question, and body of `solution`."""
