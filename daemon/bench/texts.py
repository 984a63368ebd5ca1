"""What is spoken: announcements as they are common, and two texts of several sentences."""

SENTENCES = (
    "Dinner is ready.",
    "The front door has been left open.",
    "Your timer for ten minutes is done.",
    "It is half past seven and twenty one degrees outside.",
    "The washing machine has finished, please empty it.",
    "Good morning. Today will be cloudy with some rain in the afternoon.",
)
LONGER = (
    (
        "The dishwasher has finished. The window in the kitchen is still open, and it will start to rain in half an"
        " hour. Please close it."
    ),
    (
        "Good evening. You have three new messages. The first one is from the school: tomorrow the lessons begin at"
        " nine. The second one is from the library, the book that you wanted has arrived. The third one is from your"
        " sister, who will come to visit on Saturday."
    ),
)
TEXTS = (*SENTENCES, *LONGER)
